//! `pacharc-fuzz-seeds FOLDER TARGET`: writes a target's seeds, each under its hash, for cargo-fuzz to begin with.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, target] = arguments.as_slice() else {
        eprintln!("usage: pacharc-fuzz-seeds FOLDER TARGET");
        std::process::exit(2);
    };
    std::fs::create_dir_all(folder)?;
    for seed in pacharc_fuzz::seeds(target) {
        std::fs::write(Path::new(folder).join(blake3::hash(&seed).to_hex().as_str()), seed)?;
    }
    Ok(())
}
