//! What a command that mounts and starts processes by itself has left behind.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The lines of the table of mounts that name this directory.
pub fn mounts(directory: &Path) -> Vec<String> {
    let root = directory.canonicalize().expect("it exists");
    let root = root.to_str().expect("a name that is text");
    // Others may have mounted something at bytes that are no text.
    let table = fs::read("/proc/self/mountinfo").expect("mountinfo");
    let table = String::from_utf8_lossy(&table);
    let lines = table.lines().filter(|line| line.contains(root));
    lines.map(str::to_owned).collect()
}

/// Processes that have this directory among their arguments, or are at work in it.
pub fn processes(directory: &Path) -> Vec<String> {
    let root = directory.canonicalize().expect("it exists");
    let name = root.as_os_str().as_bytes();
    let is_ours = |process: &Path| {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let place = fs::read_link(process.join("cwd")).unwrap_or_default();
        place.starts_with(&root) || command.windows(name.len()).any(|part| part == name)
    };
    let processes = fs::read_dir("/proc").expect("proc");
    processes
        .map(|entry| entry.expect("an entry").path())
        .filter(|process| is_ours(process))
        .map(|process| process.display().to_string())
        .collect()
}
