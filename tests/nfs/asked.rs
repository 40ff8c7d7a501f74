//! A program on a host that does what the test tells it, one line of Python after another.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Job;
use crate::lab::{Lab, VIEW, program};

/// No order takes longer, unless something is wrong. (A client of NFSv3 asks again after 60 s where a
/// server has dropped its call.)
const DEADLINE: Duration = Duration::from_secs(150);

/// The program, at the root of the view.
pub struct Asked {
    directory: PathBuf,
    orders: u32,
    job: Job,
}

impl Asked {
    /// Starts it on a host, as user `uid`.
    pub fn on(lab: &Lab, host: &str, uid: u32) -> Asked {
        let directory = lab.barrier();
        let line = program("asked.py", &directory.display().to_string());
        let script = format!("cd {VIEW} && exec {line}");
        Asked {
            job: lab.cluster.spawn_as(host, uid, 2 * DEADLINE, &script),
            directory,
            orders: 0,
        }
    }

    /// Has something done; `"ok"`, or the name of the error.
    pub fn ask(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer()
    }

    /// Has something done that must succeed.
    pub fn does(&mut self, order: &str) {
        assert_eq!(self.ask(order), "ok", "{order}");
    }

    /// Has something begun, the answer to which is asked for later.
    pub fn begin(&mut self, order: &str) {
        self.orders += 1;
        let new = self.directory.join(".order");
        std::fs::write(&new, order).expect("cannot write an order");
        let number = self.directory.join(self.orders.to_string());
        std::fs::rename(&new, number).expect("cannot give an order");
    }

    /// Whether what was begun is not done yet.
    pub fn is_busy(&self) -> bool {
        !self.answer_file().exists()
    }

    /// What came of the last order.
    pub fn answer(&mut self) -> String {
        let deadline = Instant::now() + DEADLINE;
        while self.is_busy() {
            assert!(self.job.is_running(), "the program has ended");
            assert!(Instant::now() < deadline, "no answer within {DEADLINE:?}");
            thread::sleep(Duration::from_millis(10));
        }
        std::fs::read_to_string(self.answer_file()).expect("an answer")
    }

    /// Waits for its end.
    pub fn end(self) {
        std::fs::write(self.directory.join("end"), "").expect("cannot end the program");
        self.job.wait_ok();
    }

    fn answer_file(&self) -> PathBuf {
        self.directory.join(format!("{}.answer", self.orders))
    }
}
