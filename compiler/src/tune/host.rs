//! The processor of this machine: its name, and which levels it has.

use kernels::Target;

/// Whether this processor has all features of a level.
pub fn has(target: &dyn Target) -> bool {
    target.features().split(',').all(feature)
}

#[cfg(target_arch = "x86_64")]
fn feature(name: &str) -> bool {
    match name {
        "avx2" => is_x86_feature_detected!("avx2"),
        "fma" => is_x86_feature_detected!("fma"),
        "f16c" => is_x86_feature_detected!("f16c"),
        "avxvnni" => is_x86_feature_detected!("avxvnni"),
        "avx512f" => is_x86_feature_detected!("avx512f"),
        "avx512bw" => is_x86_feature_detected!("avx512bw"),
        "avx512cd" => is_x86_feature_detected!("avx512cd"),
        "avx512dq" => is_x86_feature_detected!("avx512dq"),
        "avx512vl" => is_x86_feature_detected!("avx512vl"),
        "avx512vnni" => is_x86_feature_detected!("avx512vnni"),
        _ => false,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn feature(_name: &str) -> bool {
    false
}

/// Most characters of the processor's name that are kept.
const LONGEST: usize = 120;

/// The processor's name with family, model and stepping, as far as the system tells.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let of_key =
            |line: &str| line.split_once(':').filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_string());
        text.lines().find_map(of_key).unwrap_or_else(|| "unknown".to_string())
    };
    let [name, family, model, stepping] = ["model name", "cpu family", "model", "stepping"].map(value);
    let name: String = name.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).take(LONGEST).collect();
    format!("{name}, family {family}, model {model}, stepping {stepping}")
}
