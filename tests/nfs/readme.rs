//! What README.md shows of NFS comes so from a real one.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::lab::Lab;

/// The output that is shown below this command, but for what `tests/readme/plan.toml` lets differ.
#[track_caller]
fn is_shown(command: &str, output: &str) {
    let mut check = Command::new("python3")
        .args([
            "-B",
            "tests/readme/check.py",
            "output",
            "README.md",
            command,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut input = check.stdin.take().expect("piped");
    input.write_all(output.as_bytes()).expect("write");
    drop(input);
    let said = check.wait_with_output().expect("wait");
    assert!(
        said.status.success(),
        "{}\n{output}",
        String::from_utf8_lossy(&said.stdout)
    );
}

/// An export that is mounted by `soft`, with a lock file that somebody has left behind.
#[test]
fn doctor_says_what_the_readme_shows() {
    let lab = Lab::on("4.2");
    let directory = lab.directory();
    let name = directory.nfs.rsplit('/').next().expect("a name");
    let script = format!(
        "mkdir -p /mnt/net /mnt/view && mount -t nfs -o vers=4.2,soft 10.77.0.1:/data/{name} /mnt/net || exit
        cd /mnt/net && touch mbox && echo 4711 >mbox.lock && touch -d '40 minutes ago' mbox.lock || exit
        cd / && dotlockfs -o allow_other /mnt/net /mnt/view || exit
        COLUMNS=80 dotlockfs doctor /mnt/net
        status=$?
        umount /mnt/view
        until umount /mnt/net; do sleep 0.1; done
        exit $status"
    );
    let output = lab.cluster.run_ok("host1", &script);
    // The machines have no /net and /srv of their own.
    let output = output
        .replace(&format!("/data/{name}"), "/data")
        .replace("/mnt/net", "/net/data")
        .replace("/mnt/view", "/srv/data");
    is_shown("# dotlockfs doctor /net/data", &output);
}
