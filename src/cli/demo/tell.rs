//! What the demo says: plain lines in a pipe; colours, and a last line that moves, on a terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As all text.
    Plain,
    /// A headline.
    Head,
    /// Something good happened.
    Good,
    /// Something bad happened.
    Bad,
}

impl Style {
    /// How a terminal is told.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// Who says it.
pub(super) struct Teller {
    began: Instant,
    is_terminal: bool,
    frame: usize,
    said: Vec<(Style, String)>,
}

impl Teller {
    /// Time begins now.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            is_terminal: std::io::stdout().is_terminal(),
            frame: 0,
            said: Vec::new(),
        }
    }

    /// A line, or several.
    pub(super) fn say(&mut self, style: Style, text: &str) {
        for line in text.lines() {
            self.line(style, line.to_owned());
        }
    }

    /// A headline after an empty line.
    pub(super) fn head(&mut self, text: &str) {
        self.line(Style::Plain, String::new());
        self.line(Style::Head, text.to_owned());
    }

    /// A line of the timeline: who did what.
    pub(super) fn event(&mut self, style: Style, who: &str, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.line(style, format!("{seconds:6.1} s  {who:<9}  {what}"));
    }

    /// What is going on: only for those who look.
    pub(super) fn progress(&mut self, text: &str) {
        if !self.is_terminal {
            return;
        }
        const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
        self.frame += 1;
        let seconds = self.began.elapsed().as_secs_f64();
        let text: String = text.chars().take(90).collect();
        let frame = FRAMES[self.frame % FRAMES.len()];
        self.write(&format!("\r\x1b[K\x1b[2m{seconds:6.1} s  {frame} {text}\x1b[0m"));
    }

    /// All that was said.
    pub(super) fn said(&self) -> &[(Style, String)] {
        &self.said
    }

    fn line(&mut self, style: Style, text: String) {
        if self.is_terminal {
            self.write(&format!("\r\x1b[K{}{text}\x1b[0m\n", style.code()));
        } else {
            self.write(&format!("{text}\n"));
        }
        self.said.push((style, text));
    }

    /// A reader that went away is no reason to fail.
    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
