//! How far a run has come.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error, if that is a terminal; gone when it goes out of scope.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// One that is full at `length`.
    pub fn new(length: u64) -> Bar {
        let style = ProgressStyle::with_template("  {msg:32} [{bar:32}] {percent:>3} %")
            .expect("the template is fixed")
            .progress_chars("=> ");
        Bar(ProgressBar::new(length).with_style(style))
    }

    /// Says what is being done.
    pub fn say(&self, what: String) {
        self.0.set_message(what);
    }

    /// Says how far it has come.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
