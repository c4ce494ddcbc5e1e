//! What a process holds in the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::wait::{self, LIMIT, Output};

/// The ids of the BPF programs, maps and links that a process holds. Ids are never used again.
#[derive(Debug, Default)]
pub struct Held {
    /// Of programs.
    pub programs: BTreeSet<u32>,
    /// Of maps.
    pub maps: BTreeSet<u32>,
    /// Of links.
    pub links: BTreeSet<u32>,
}

impl Held {
    /// What it holds now; nothing if it is gone.
    pub fn by(pid: u32) -> Self {
        let mut held = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            // Closed since it was listed.
            let Ok(info) = fs::read_to_string(entry.path()) else { continue };
            for line in info.lines() {
                let Some((key, value)) = line.split_once(':') else { continue };
                let ids = match key {
                    "prog_id" => &mut held.programs,
                    "map_id" => &mut held.maps,
                    "link_id" => &mut held.links,
                    _ => continue,
                };
                ids.extend(value.trim().parse::<u32>());
            }
        }
        held
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let of = |kind, ids: &BTreeSet<u32>| ids.iter().map(|id| (kind, *id)).collect::<Vec<_>>();
        [of("prog", &self.programs), of("map", &self.maps), of("link", &self.links)].into_iter().flatten()
    }

    /// Fails unless bpftool finds all of it.
    ///
    /// # Panics
    /// With what it does not find.
    #[track_caller]
    pub fn assert_there(&self) {
        for (kind, id) in self.all() {
            assert!(exists(kind, id), "bpftool finds no {kind} {id}");
        }
    }

    /// The id of the map of this name.
    ///
    /// # Panics
    /// When none of the maps is called so.
    #[track_caller]
    pub fn map(&self, name: &str) -> String {
        let mut ids = self.maps.iter().map(u32::to_string);
        let id = ids.find(|id| json(&["map", "show", "id", id])["name"] == name);
        id.unwrap_or_else(|| panic!("there is no map {name}"))
    }

    /// How many entries the map of this name has.
    ///
    /// # Panics
    /// When none of the maps is called so.
    #[track_caller]
    pub fn entries(&self, map: &str) -> usize {
        json(&["map", "dump", "id", &self.map(map)]).as_array().map_or(0, Vec::len)
    }

    /// Writes an entry of so many bytes for key and value, all of them 255, as any process may that has `CAP_SYS_ADMIN`.
    /// Returns what bpftool says.
    pub fn write(&self, map: &str, key: usize, value: usize) -> Output {
        let bytes = |count| std::iter::repeat_n("255", count);
        let id = self.map(map);
        let words = ["map", "update", "id", &id, "key"].into_iter().chain(bytes(key));
        let words: Vec<&str> = words.chain(["value"]).chain(bytes(value)).collect();
        bpftool(&words)
    }

    /// Takes so many elements from a queue.
    ///
    /// # Panics
    /// When it has not as many.
    #[track_caller]
    pub fn dequeue(&self, queue: &str, count: usize) {
        let dir = crate::scratch::Dir::new("bpftool");
        let commands = dir.path().join("commands");
        let line = format!("map dequeue id {}\n", self.map(queue));
        fs::write(&commands, line.repeat(count)).expect("our own directory");
        bpftool(&["batch", "file", commands.to_str().expect("UTF-8")]).success();
    }

    /// Waits until nothing of it is left: the kernel frees it a little later than the process's descriptors.
    #[track_caller]
    pub fn wait_gone(&self) {
        for (kind, id) in self.all() {
            wait::until(&format!("the end of BPF {kind} {id}"), || (!exists(kind, id)).then_some(()));
        }
    }
}

/// What a map takes.
#[derive(Debug)]
pub struct Memory {
    /// Of what there is once.
    pub bytes: u64,
    /// Of what there is for each possible CPU.
    pub bytes_per_cpu: u64,
    /// The map's name.
    pub name: String,
}

impl Held {
    /// The memory of each of its maps.
    ///
    /// # Panics
    /// When bpftool does not tell it.
    #[track_caller]
    pub fn memory(&self) -> Vec<Memory> {
        let of_map = |id: &u32| {
            let map: Value = serde_json::from_str(&bpftool(&["map", "show", "id", &id.to_string()]).stdout)
                .unwrap_or_default();
            let number = |key: &str| map[key].as_u64().unwrap_or_else(|| panic!("{key} is missing: {map}"));
            let name = map["name"].as_str().unwrap_or_default().to_owned();
            let is_per_cpu = map["type"].as_str().is_some_and(|kind| kind.starts_with("percpu_"));
            // What older kernels say of those is the size of one CPU's.
            let each = number("bytes_value").next_multiple_of(8) * number("max_entries");
            if is_per_cpu {
                return Memory { bytes: 0, bytes_per_cpu: each, name };
            }
            Memory { bytes: number("bytes_memlock"), bytes_per_cpu: 0, name }
        };
        self.maps.iter().map(of_map).collect()
    }
}

/// Whether bpftool finds it.
fn exists(kind: &str, id: u32) -> bool {
    bpftool(&[kind, "show", "id", &id.to_string()]).status.success()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&bpftool(arguments).stdout).unwrap_or_default()
}

fn bpftool(arguments: &[&str]) -> Output {
    let program = crate::need::find("bpftool").expect("Need::Bpftool");
    wait::output(Command::new(program).arg("--json").args(arguments), LIMIT)
}
