// SPDX-License-Identifier: GPL-2.0-only
//! Figures as a table for people, and as JSON; the machine that they are from.

use nix::sys::utsname::uname;
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

/// Where something was measured, and how.
#[derive(Serialize)]
pub struct Machine {
    kernel: String,
    cpu: String,
    cpus: usize,
    command: Vec<String>,
}

impl Machine {
    /// This one, and this command.
    pub fn here() -> Self {
        let release = uname().map(|names| names.release().to_string_lossy().into_owned());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let command = std::env::args().skip(1).collect();
        Self { kernel: release.unwrap_or_default(), cpu: cpu_model(), cpus, command }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}, {} x {}", self.kernel, self.cpus, self.cpu)
    }
}

/// The first CPU's name; not every architecture tells.
fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("CPU", |rest| rest.trim_start_matches([' ', '\t', ':'])).to_owned()
}

/// Writes figures to a file.
pub fn write_json(path: &Path, figures: &impl Serialize) -> Result<(), String> {
    let failed = |error: &dyn fmt::Display| format!("writing {}: {error}", path.display());
    let file = File::create(path).map_err(|error| failed(&error))?;
    serde_json::to_writer_pretty(file, figures).map_err(|error| failed(&error))
}

/// Lines of cells, each column as wide as its widest cell; the first one to the left.
pub fn table(head: &[&str], lines: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.into()).collect();
    let all = || std::iter::once(&head).chain(lines);
    let width = |column: usize| all().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let show = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all().map(show).collect()
}

/// The value in the middle; `NAN` of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// What this share of the times, which are in order, does not exceed, in milliseconds; `None` for
/// `Duration::MAX`, which stands for what never came.
pub fn percentile(times: &[Duration], percent: usize) -> Option<f64> {
    let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
    let time = times.get(place).filter(|time| **time != Duration::MAX);
    time.map(|time| time.as_secs_f64() * 1e3)
}

/// The first and the third quartile.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 4], values[values.len() * 3 / 4]]
}
