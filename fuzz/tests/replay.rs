//! Every target with its seeds, with what was once found, and with seeded random changes of these: on any compiler.
//!
//! `PACHARC_FUZZ_RUNS` is how many changes a target gets, `PACHARC_FUZZ_SEED` where they begin.

// Clippy's own exception for tests knows only the test functions themselves, not what they share.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::Path;

use pacharc_fuzz::{Mutator, TARGETS, run, seeds};

/// The most memory that all of it may take, in bytes: no input has more than some hundred kilobytes.
const MEMORY: u64 = 600 << 20;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Changes that a target gets: whole bundles are slow.
fn runs(target: &str) -> u64 {
    let runs = match target {
        "bundle" | "salvage" | "sums" => 60,
        "bundle_key" | "compressed" => 200,
        _ => 2000,
    };
    variable("PACHARC_FUZZ_RUNS", runs)
}

#[test]
fn nothing_panics() {
    for target in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        seeds.iter().for_each(|seed| run(target, seed));
        let first = variable("PACHARC_FUZZ_SEED", 1);
        for number in first..first + runs(target) {
            let mut mutator = Mutator::new(number << 20);
            let seed = &seeds[mutator.below(seeds.len())];
            let bytes = mutator.change(seed, &seeds);
            let passed = catch_unwind(|| run(target, &bytes)).is_ok();
            if !passed {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-{number}"));
                std::fs::write(&path, &bytes).unwrap();
                panic!("{target} failed with change {number}: {}", path.display());
            }
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak << 10 < MEMORY, "{peak} kB of memory were taken");
}

#[test]
fn every_target_has_a_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let programs: BTreeSet<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(programs, TARGETS.iter().map(|target| format!("{target}.rs")).collect());
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    for target in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in Cargo.toml");
    }
}
