//! The closing table.

use crate::timing::{Row, Unit};

/// Prints a line for each row.
pub fn print(rows: &[Row]) {
    println!("\n| kernel | best time | speed | peak | of the peak |\n|---|---|---|---|---|");
    for row in rows {
        let speed = row.amount / row.seconds;
        let (peak, unit) = match row.unit {
            Unit::Flops => (Some(row.peak.flops), "GFLOP/s"),
            Unit::Ops => (Some(row.peak.ops), "Gop/s"),
            Unit::Bytes => (Some(row.peak.bytes), "GB/s"),
            Unit::Elements => (None, "G elements/s"),
        };
        let beside = match peak {
            Some(peak) => format!("{:.1} | {:.0} %", peak / 1e9, 100.0 * speed / peak),
            None => " | ".to_string(),
        };
        println!("| {} | {} | {:.2} {unit} | {beside} |", row.name, duration(row.seconds), speed / 1e9);
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 1e-4 { format!("{:.2} us", 1e6 * seconds) } else { format!("{:.3} ms", 1e3 * seconds) }
}
