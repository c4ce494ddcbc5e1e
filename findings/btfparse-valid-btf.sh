#!/bin/bash
# Valid BTF that btfparse reads as something else or refuses.
#
# Packages: btfparse 1.3.9 (Rust crate); bpftool 7.1.0+6.1.192-2 (Debian), which reads all of it, for comparison.
# Expected: Documentation/bpf/btf.rst. "Type Encoding": types of different kinds may have one name. 2.2.4 BTF_KIND_STRUCT: without
#   kind_flag "the offset contains only bit offset of the member", and the width of a bit field is in its int. 2.2.18 BTF_KIND_TYPE_TAG:
#   a tag stands between a pointer and what it points to (Clang writes "rcu", "percpu", "user" of the kernel so). btfparse documents
#   `id_of` as "Returns the type id for the given type name", `offset_of` as "the next type id and the current offset", `size_of` as the
#   size of a type.
# Seen: `id_of` keeps one type for each name, the last: a function or variable hides the structure. In the BTF of Linux 6.18 that is so for
#   150 structures, syscall_user_dispatch and context_tracking among them. `offset_of` follows typedef, const and volatile, but not type
#   tags, although `size_of` does: task_struct's cred cannot be followed in a kernel built by Clang. The size of a pointer is half of
#   "struct list_head": BTF without it (of a BPF object, of a module) has no pointer size. One bit field without kind_flag that does not
#   begin at a byte makes the whole BTF unreadable.
# Output:
#   id_of("gadget"): Func; bpftool: STRUCT FUNC
#   offset_of(*cred, "uid"): refused; size_of(*cred): 8
#   offset_of(plain *cred, "uid"): 4
#   size_of(pointer): refused; with struct list_head: 8
#   bit field at bit 3 without kind_flag: refused; bpftool: bits_offset=3
source "$(dirname "$0")/lib.sh"
deb bpftool 7.1.0+6.1.192-2
cat >"$work/btf.py" <<'PYTHON'
import struct, sys

INT, PTR, STRUCT, FUNC, FUNC_PROTO, TYPE_TAG = 1, 2, 4, 12, 13, 18


class Btf:
    def __init__(self):
        self.strings, self.types, self.count = b"\0", b"", 0

    def string(self, text):
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def type(self, kind, name, size_or_type, members=(), extra=b""):
        self.types += struct.pack("<III", self.string(name), kind << 24 | len(members), size_or_type) + extra
        for member, member_type, bit in members:
            self.types += struct.pack("<III", self.string(member), member_type, bit)
        self.count += 1
        return self.count

    def int(self, name, size, bits):
        return self.type(INT, name, size, extra=struct.pack("<I", bits))

    def write(self, path):
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings))
        with open(path, "wb") as file:
            file.write(header + self.types + self.strings)


folder = sys.argv[1]
names = Btf()
u32 = names.int("u32", 4, 32)
names.type(STRUCT, "gadget", 4, [("id", u32, 0)])
proto = names.type(FUNC_PROTO, "", 0)
names.type(FUNC, "gadget", proto)
names.write(folder + "/names.btf")

for file, with_list in (("tags.btf", False), ("list.btf", True)):
    tags = Btf()
    u32 = tags.int("u32", 4, 32)
    cred = tags.type(STRUCT, "cred", 8, [("usage", u32, 0), ("uid", u32, 32)])
    tag = tags.type(TYPE_TAG, "rcu", cred)
    pointer = tags.type(PTR, "", tag)
    tags.type(STRUCT, "task", 8, [("cred", pointer, 0)])
    plain = tags.type(PTR, "", cred)
    tags.type(STRUCT, "plain", 8, [("cred", plain, 0)])
    if with_list:
        head = tags.type(PTR, "", tags.count + 2)
        tags.type(STRUCT, "list_head", 16, [("next", head, 0), ("prev", head, 64)])
    tags.write(folder + "/" + file)

bits = Btf()
three, five = bits.int("three", 4, 3), bits.int("five", 4, 5)
bits.type(STRUCT, "flags", 4, [("low", three, 0), ("high", five, 3)])
bits.write(folder + "/bits.btf")
PYTHON
mkdir -p "$work/crate/src"
cat >"$work/crate/src/main.rs" <<'RUST'
use btfparse::{Error, ErrorKind, Offset, Readable, TypeInformation, TypeVariant};

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let from = self.0.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(Error::new(ErrorKind::EOF, "end"))?);
        Ok(())
    }
}

fn load(name: &str) -> Option<TypeInformation> {
    let bytes = std::fs::read(format!("{}/{name}.btf", std::env::args().nth(1).unwrap())).unwrap();
    TypeInformation::new(&Bytes(bytes)).ok()
}

fn main() {
    let names = load("names").unwrap();
    let kind = match names.from_id(names.id_of("gadget").unwrap()) {
        Some(TypeVariant::Struct(_)) => "Struct",
        Some(TypeVariant::Func(_)) => "Func",
        _ => "another",
    };
    println!("id_of(\"gadget\"): {kind}");
    let tags = load("tags").unwrap();
    let pointee = |holder: &str| {
        let (pointer, _) = tags.offset_of(tags.id_of(holder).unwrap(), "cred").unwrap();
        tags.pointee_tid(pointer).unwrap()
    };
    let uid = |holder: &str| match tags.offset_of(pointee(holder), "uid") {
        Ok((_, Offset::ByteOffset(offset))) => offset.to_string(),
        Ok(_) => "a bit field".into(),
        Err(_) => "refused".into(),
    };
    println!("offset_of(*cred, \"uid\"): {}; size_of(*cred): {}", uid("task"), tags.size_of(pointee("task")).unwrap());
    println!("offset_of(plain *cred, \"uid\"): {}", uid("plain"));
    let size = |btf: &TypeInformation| {
        let (pointer, _) = btf.offset_of(btf.id_of("plain").unwrap(), "cred").unwrap();
        btf.size_of(pointer).map_or("refused".into(), |size| size.to_string())
    };
    println!("size_of(pointer): {}; with struct list_head: {}", size(&tags), size(&load("list").unwrap()));
    println!("bit field at bit 3 without kind_flag: {}", if load("bits").is_some() { "accepted" } else { "refused" });
}
RUST
crate_binary 'btfparse = "=1.3.9"'
python3 "$work/btf.py" "$work"
dump() {
  "$deb_root/usr/sbin/bpftool" btf dump file "$work/$1.btf"
}
{
  mapfile -t lines < <("$binary" "$work")
  echo "${lines[0]}; bpftool:$(dump names | awk '$3 == "\x27gadget\x27" { printf " %s", $2 }')"
  printf '%s\n' "${lines[@]:1:3}"
  echo "${lines[4]}; bpftool: $(dump bits | grep -o "bits_offset=3")"
} | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
id_of("gadget"): Func; bpftool: STRUCT FUNC
offset_of(*cred, "uid"): refused; size_of(*cred): 8
offset_of(plain *cred, "uid"): 4
size_of(pointer): refused; with struct list_head: 8
bit field at bit 3 without kind_flag: refused; bpftool: bits_offset=3
RECORDED
