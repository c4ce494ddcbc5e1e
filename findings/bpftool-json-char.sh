#!/bin/bash
# `bpftool -j map dump` of a map with a char value: two of 256 values give invalid JSON.
#
# Package: bpftool 7.1.0+6.1.192-2 (Debian 12). Needs root and BPF.
# Expected: bpftool(8), `-j, --json`: "Generate JSON output." RFC 8259, section 7: quotation mark and reverse solidus must be escaped.
# Seen: the BTF dumper prints an integer with BTF_INT_CHAR encoding as the bare character between quotation marks. A value of 34 (") or 92
#   (\) makes the whole dump unreadable for a JSON parser, also all other elements. Everything else is escaped.
# Output:
#   value 97: {"key":0,"value":"a"} valid
#   value 34: {"key":0,"value":"""} invalid
#   value 92: {"key":0,"value":"\"} invalid
#   value 1: {"key":0,"value":"\u0001"} valid
source "$(dirname "$0")/lib.sh"
deb bpftool 7.1.0+6.1.192-2

python3 - "$deb_root/usr/sbin/bpftool" >"$work/seen" <<'PYTHON'
import ctypes, json, platform, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
MAP_CREATE, MAP_UPDATE_ELEM, OBJ_GET_INFO_BY_FD, BTF_LOAD = 0, 2, 15, 18
ARRAY = 2


def bpf(command, attributes):
    attributes = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(BPF, command, attributes, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return result


INT, CHAR, SIGNED = 1 << 24, 2 << 24, 1 << 24
strings = b"\0char\0int\0"
types = struct.pack("<IIII", 1, INT, 1, CHAR | 8) + struct.pack("<IIII", 6, INT, 4, SIGNED | 32)
header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
blob = header + types + strings
buffer = ctypes.create_string_buffer(blob, len(blob))
btf = bpf(BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(buffer), 0, len(blob), 0, 0))
# type, key size, value size, entries, flags, inner map, NUMA node, name, device, BTF, type id of the key (int) and the value (char)
map_fd = bpf(MAP_CREATE, struct.pack("<7I16s4I", ARRAY, 4, 1, 1, 0, 0, 0, b"finding", 0, btf, 2, 1))
info = ctypes.create_string_buffer(256)
bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", map_fd, 256, ctypes.addressof(info)))
map_id = struct.unpack_from("<I", info.raw, 4)[0]
for value in (97, 34, 92, 1):
    key = ctypes.create_string_buffer(struct.pack("<I", 0))
    cell = ctypes.create_string_buffer(bytes([value]))
    bpf(MAP_UPDATE_ELEM, struct.pack("<IIQQQ", map_fd, 0, ctypes.addressof(key), ctypes.addressof(cell), 0))
    out = subprocess.run([sys.argv[1], "-j", "map", "dump", "id", str(map_id)], stdout=subprocess.PIPE, check=True).stdout.decode()
    try:
        json.loads(out)
        verdict = "valid"
    except ValueError:
        verdict = "invalid"
    print(f"value {value}:", out.split('"formatted":')[1].strip()[:-2], verdict)
PYTHON
cat "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
value 97: {"key":0,"value":"a"} valid
value 34: {"key":0,"value":"""} invalid
value 92: {"key":0,"value":"\"} invalid
value 1: {"key":0,"value":"\u0001"} valid
RECORDED
