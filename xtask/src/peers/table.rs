//! The report: ratios to the best peer of each row, then every side's figures; as Markdown and as JSON.

use std::fmt::Write as _;

use super::measure::{Figures, Series, What};
use super::sides::{Phase, Side};

/// All that goes into a report.
pub struct Report<'a> {
    pub figures: &'a Figures,
    pub threads: &'a [usize],
    pub quant: &'a str,
    pub rounds: usize,
}

/// A row of the first table: medians.
struct Row {
    what: What,
    threads: usize,
    ours: Option<f64>,
    /// Its name and figure.
    best: Option<(String, f64)>,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.best.as_ref()?.1 / self.ours?)
    }
}

impl Report<'_> {
    /// For people.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{}; `--quant {}`, {} rounds in turn, medians. {}.\n\n",
            machine(),
            self.quant,
            self.rounds,
            self.figures.versions.join(", ")
        );
        text += "| work | threads | tvlmc | best peer | times better |\n|---|---|---|---|---|\n";
        for row in self.rows() {
            let shown = |value: Option<f64>| value.map_or("-".to_string(), |v| with_unit(row.what, v));
            let best = row.best.as_ref().map_or("-".to_string(), |(name, v)| format!("{}, {name}", shown(Some(*v))));
            let ratio = row.ratio().map_or("-".to_string(), |r| format!("{r:.2}"));
            let _ =
                writeln!(text, "| {} | {} | {} | {best} | {ratio} |", label(row.what), row.threads, shown(row.ours));
        }
        text += "\n| work | threads | side | median | least to most | values |\n|---|---|---|---|---|---|\n";
        for series in self.sorted() {
            let (least, most) = range(&series.values);
            let median = self.figures.median(series.what, series.threads, series.side).unwrap_or_default();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {least:.1} to {most:.1} | {} |",
                label(series.what),
                series.threads,
                series.side,
                with_unit(series.what, median),
                series.values.len()
            );
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let list = |values: &[f64]| values.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(", ");
        let number = |value: Option<f64>| value.map_or("null".to_string(), |v| format!("{v:.3}"));
        let rows = self.rows().into_iter().map(|row| {
            let (name, best) = row.best.as_ref().map_or(("", None), |(name, v)| (name.as_str(), Some(*v)));
            format!(
                "    {{\"work\": {:?}, \"threads\": {}, \"tvlmc\": {}, \"best_peer\": {name:?}, \"peer\": {}, \"ratio\": {}}}",
                row.what.key(),
                row.threads,
                number(row.ours),
                number(best),
                number(row.ratio())
            )
        });
        let series = self.sorted().into_iter().map(|s| {
            format!(
                "    {{\"work\": {:?}, \"threads\": {}, \"side\": {:?}, \"values\": [{}]}}",
                s.what.key(),
                s.threads,
                s.side,
                list(&s.values)
            )
        });
        format!(
            "{{\n  \"machine\": {:?},\n  \"quant\": {:?},\n  \"rounds\": {},\n  \"versions\": {:?},\n  \"ratios\": [\n{}\n  ],\n  \"series\": [\n{}\n  ]\n}}\n",
            machine(),
            self.quant,
            self.rounds,
            self.figures.versions,
            rows.collect::<Vec<_>>().join(",\n"),
            series.collect::<Vec<_>>().join(",\n")
        )
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for what in What::ALL {
            for &threads in self.threads {
                let ours = self.figures.median(what, threads, Side::Ours.name());
                let best = match what {
                    // No peer does both halves: the best of each, which leaves out their preprocessing.
                    What::First => self
                        .best(What::Vision, threads)
                        .zip(self.best(What::Prefill, threads))
                        .map(|((vision, a), (decoder, b))| (format!("{vision} + {decoder}"), a + b)),
                    _ => self.best(what, threads),
                };
                if ours.is_some() || best.is_some() {
                    rows.push(Row { what, threads, ours, best });
                }
            }
        }
        rows
    }

    fn best(&self, what: What, threads: usize) -> Option<(String, f64)> {
        // Memory is that of running the vision tower.
        let fits = |side: &&Side| **side != Side::Ours && (what != What::Memory || side.takes(Phase::Vision));
        let peers = Side::ALL.iter().filter(fits);
        let figures = peers.filter_map(|s| Some((s.name().to_string(), self.figures.median(what, threads, s.name())?)));
        figures.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn sorted(&self) -> Vec<&Series> {
        let place = |s: &Series| {
            let what = What::ALL.iter().position(|w| *w == s.what);
            (what, s.threads, Side::ALL.iter().position(|side| side.name() == s.side))
        };
        let mut all: Vec<&Series> = self.figures.series.iter().collect();
        all.sort_by_key(|s| place(s));
        all
    }
}

fn label(what: What) -> &'static str {
    match what {
        What::Vision => "vision tower and projector, 1024 x 1024",
        What::Prefill => "prefill, 290 tokens",
        What::Decode => "decode a token at 300 of context",
        What::First => "photo to first token, 290 tokens",
        What::Ready => "process start to ready",
        What::Memory => "private memory",
    }
}

fn with_unit(what: What, value: f64) -> String {
    match what {
        What::Memory => format!("{value:.0} MiB"),
        What::Prefill => format!("{value:.0} ms ({:.0} tokens/s)", 290.0 * 1000.0 / value),
        What::Decode => format!("{value:.1} ms ({:.1} tokens/s)", 1000.0 / value),
        What::Vision | What::First => format!("{value:.0} ms"),
        What::Ready => format!("{value:.1} ms"),
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)))
}

/// The processor, how many of it there are, and how busy they were.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    format!("{count} x {}, load {load} at the end", model.trim_start_matches([' ', '\t', ':']))
}

#[cfg(test)]
mod tests {
    use super::{Figures, Report, What};

    #[test]
    fn the_best_peer_of_each_row_is_compared() {
        let mut figures = Figures::default();
        for (what, side, value) in [
            (What::Vision, "tvlmc", 500.0),
            (What::Vision, "openvino-int8", 1000.0),
            (What::Vision, "onnxruntime-int8", 1500.0),
            (What::Prefill, "llama.cpp", 900.0),
            (What::Prefill, "openvino-genai", 500.0),
            (What::First, "tvlmc", 750.0),
            (What::Memory, "tvlmc", 50.0),
            (What::Memory, "openvino-int8", 600.0),
            (What::Memory, "llama.cpp", 300.0),
        ] {
            figures.add(what, 2, side, &[value]);
        }
        let report = Report { figures: &figures, threads: &[2], quant: "int4", rounds: 1 };
        let text = report.markdown();
        for line in [
            "| vision tower and projector, 1024 x 1024 | 2 | 500 ms | 1000 ms, openvino-int8 | 2.00 |",
            "| prefill, 290 tokens | 2 | - | 500 ms (580 tokens/s), openvino-genai | - |",
            "| photo to first token, 290 tokens | 2 | 750 ms | 1500 ms, openvino-int8 + openvino-genai | 2.00 |",
            "| private memory | 2 | 50 MiB | 600 MiB, openvino-int8 | 12.00 |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["ratios"][0]["ratio"], 2.0);
        assert_eq!(json["series"].as_array().map(Vec::len), Some(9));
    }
}
