//! `cargo xtask facts`: what rustc makes of the hot kernels of a quantized package, counted in its assembly.
//!
//! The demo model is compiled as int4 and its crate built with `--emit asm`. For each kernel the hot loop is the innermost
//! loop with most dot products (with most arithmetic where there are none): references to the stack in it are spilled
//! registers. `snapshots/asm/LEVEL.txt` holds the reviewed tables.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::report::Outcome;
use crate::{emitted, shell};

/// Names of hot kernels begin with one of these.
const HOT: [&str; 7] = ["gemm_", "gemv_", "expand_", "quantize_", "depthwise_", "attend_", "softmax_"];

/// Second line of a table, after the compiler's version; one line for each kernel follows.
const COLUMNS: &str = "instr dots | hot loop: instr dots stack | stack calls panics | kernel";

/// Counts of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    instructions: usize,
    dots: usize,
    hot: Loop,
    stack: usize,
    calls: usize,
    panics: usize,
}

/// Counts of one loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Loop {
    dots: usize,
    arithmetic: usize,
    instructions: usize,
    stack: usize,
}

/// Kernels by level and name.
type Tables = BTreeMap<String, BTreeMap<String, Facts>>;

/// Prints the tables and compares them with the reviewed ones; `--write` makes them the reviewed ones instead.
pub fn run(rest: &[&str]) -> Result<bool, String> {
    let write = match rest {
        [] => false,
        ["--write"] => true,
        _ => return Err(format!("facts takes --write or nothing, not `{}`", rest.join(" "))),
    };
    let (compiler, tables) = (compiler()?, tables()?);
    for (level, kernels) in &tables {
        let text = print(&compiler, kernels);
        println!("{level}\n{text}");
        if write {
            let path = snapshot(level);
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            folder
                .and_then(|()| std::fs::write(&path, text))
                .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
    }
    match compare(&compiler, &tables)? {
        Outcome::Bad(reason) => {
            println!("{reason}");
            Ok(false)
        }
        Outcome::Good(said) | Outcome::Note(said) | Outcome::Skipped(said) => {
            println!("{said}");
            Ok(true)
        }
    }
}

/// Compares with the reviewed tables.
pub fn check() -> Result<Outcome, String> {
    compare(&compiler()?, &tables()?)
}

/// Another compiler may count otherwise, but panics in a kernel are wrong with any.
fn compare(compiler: &str, tables: &Tables) -> Result<Outcome, String> {
    let (mut differ, mut others, mut counted) = (Vec::new(), false, 0);
    for (level, kernels) in tables {
        let path = snapshot(level);
        let reviewed = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        counted += kernels.len();
        let text = print(compiler, kernels);
        if reviewed.lines().next() == text.lines().next() {
            let lacks = |text: &str, line: &str| !text.lines().any(|known| known == line);
            differ.extend(reviewed.lines().filter(|line| lacks(&text, line)).map(|line| format!("{level} - {line}")));
            differ.extend(text.lines().filter(|line| lacks(&reviewed, line)).map(|line| format!("{level} + {line}")));
            continue;
        }
        others = true;
        let panics = kernels.iter().filter(|(_, facts)| facts.panics > 0).map(|(name, _)| name);
        let known = |name: &&String| {
            let (ends, none) = (format!("| {name}"), format!(" 0 | {name}"));
            reviewed.lines().any(|line| line.ends_with(&ends) && !line.ends_with(&none))
        };
        differ.extend(panics.filter(|name| !known(name)).map(|name| format!("{level} {name}: panics")));
    }
    for line in &differ {
        println!("{line}");
    }
    Ok(match (differ.len(), others) {
        (0, false) => Outcome::Good(format!("{counted} kernels as reviewed")),
        (0, true) => Outcome::Note(format!("{counted} kernels, none panics; the tables are of another rustc")),
        (n, _) => Outcome::Bad(format!("{n} lines differ; review them, then `cargo xtask facts --write`")),
    })
}

/// The compiler's version without its date: `rustc 1.95.0`.
fn compiler() -> Result<String, String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    let told = shell::ask(&rustc, &["--version"]).ok_or("cannot run rustc --version")?;
    Ok(told.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn snapshot(level: &str) -> PathBuf {
    shell::root().join("snapshots/asm").join(format!("{level}.txt"))
}

/// Compiles the demo model, builds it to assembly and counts.
fn tables() -> Result<Tables, String> {
    let demo = shell::root().join("models/demo");
    let (out, built) = (shell::target().join("facts-demo"), shell::target().join("facts"));
    let args = ["compile", emitted::utf8(&demo)?, "--target", emitted::TARGET, "--quant", "int4", "--name", "demo"];
    if !emitted::tvlmc(&[&args[..], &["-o", emitted::utf8(&out)?, "--force"]].concat())? {
        return Err("tvlmc could not compile the demo model".to_string());
    }
    // What an earlier build left must not be counted.
    let assembly = built.join("release/deps");
    let _ = std::fs::remove_dir_all(&built);
    let manifest = out.join("Cargo.toml");
    let args = ["rustc", "--release", "--quiet", "--lib", "--manifest-path", emitted::utf8(&manifest)?];
    let last = ["--target-dir", emitted::utf8(&built)?, "--", "--emit", "asm"];
    if !shell::run(&mut shell::cargo(&[&args[..], &last].concat()))? {
        return Err("the demo's crate could not be built".to_string());
    }
    let mut tables = Tables::new();
    for file in files(&assembly)? {
        let text = std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        for (symbol, lines) in functions(&text) {
            if let Some((level, name)) = kernel(symbol).filter(|(_, name)| HOT.iter().any(|hot| name.starts_with(hot)))
            {
                tables.entry(level).or_default().insert(name, count(&lines));
            }
        }
    }
    if tables.is_empty() {
        return Err(format!("no kernel in the assembly of {}", assembly.display()));
    }
    Ok(tables)
}

/// Assembly files of a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "s")).collect())
}

fn print(compiler: &str, kernels: &BTreeMap<String, Facts>) -> String {
    let mut text = format!("{compiler}\n{COLUMNS}\n");
    for (name, f) in kernels {
        let (hot, all) = (f.hot, f.stack);
        let counts = [f.instructions, f.dots].map(|n| format!("{n:5}")).concat();
        let inner = [hot.instructions, hot.dots, hot.stack].map(|n| format!("{n:4}")).concat();
        let (calls, panics) = (f.calls, f.panics);
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{counts} | {inner} | {all:4}{calls:4} {panics} | {name}");
    }
    text
}

/// The functions of an assembly file: symbol and lines.
fn functions(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(label) if label.starts_with(".Lfunc_end") => open = false,
            Some(symbol) if symbol.starts_with('_') => {
                found.push((symbol, Vec::new()));
                open = true;
            }
            _ if open => found.last_mut().into_iter().for_each(|(_, lines)| lines.push(line.trim())),
            _ => {}
        }
    }
    found
}

/// Level and name of a kernel, from its mangled path `.. kernels LEVEL FAMILY NAME`: in all manglings each word follows
/// its length.
fn kernel(symbol: &str) -> Option<(String, String)> {
    let mut rest = &symbol[symbol.find("7kernels")?..];
    let mut words = Vec::new();
    while words.len() < 4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = rest[..digits].parse().ok()?;
        words.push(rest.get(digits..digits + length)?);
        rest = &rest[digits + length..];
    }
    Some((words[1].to_string(), words[3].to_string()))
}

fn count(lines: &[&str]) -> Facts {
    let mut labels = HashMap::new();
    let mut code: Vec<&str> = Vec::new();
    for line in lines {
        match line.strip_suffix(':') {
            Some(label) => {
                labels.insert(label, code.len());
            }
            None if line.is_empty() || line.starts_with(['.', '#']) => {}
            None => code.push(line),
        }
    }
    // Otherwise it is a register like any other.
    let frame = code.iter().any(|line| line.starts_with("movq") && line.ends_with("%rsp, %rbp"));
    let stack = |line: &&&str| line.contains("(%rsp") || (frame && line.contains("(%rbp"));
    let dot = |line: &&&str| line.contains("vpdpbusd") || line.contains("vpmaddubsw");
    let arithmetic = |line: &&&str| ["vmul", "vadd", "vfmadd", "vfnmadd"].iter().any(|op| line.starts_with(op));
    let backwards = |(at, line): (usize, &&str)| {
        let target = line.strip_prefix('j')?.split_whitespace().nth(1)?;
        labels.get(target).filter(|start| **start <= at).map(|start| (*start, at))
    };
    let loops: Vec<(usize, usize)> = code.iter().enumerate().filter_map(backwards).collect();
    let innermost =
        |(from, to): &&(usize, usize)| !loops.iter().any(|l| l != &(*from, *to) && *from <= l.0 && l.1 <= *to);
    let counted = loops.iter().filter(innermost).map(|(from, to)| {
        let body = &code[*from..=*to];
        Loop {
            dots: body.iter().filter(dot).count(),
            arithmetic: body.iter().filter(arithmetic).count(),
            instructions: body.len(),
            stack: body.iter().filter(stack).count(),
        }
    });
    let hot = counted.max().unwrap_or_default();
    let leaves = |line: &&&str| line.starts_with("call") || (line.starts_with("jmp") && !line.contains(".L"));
    let (panics, calls): (Vec<&str>, Vec<&str>) =
        code.iter().filter(leaves).copied().partition(|line| line.contains("panic"));
    Facts {
        instructions: code.len(),
        dots: code.iter().filter(dot).count(),
        hot,
        stack: code.iter().filter(stack).count(),
        calls: calls.len(),
        panics: panics.len() + code.iter().filter(|line| **line == "ud2").count(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Loop, count, functions, kernel};

    const ASSEMBLY: &str = "
_ZN4demo7kernels2v34gemm9gemm_bias17h0123456789abcdefE:
	.cfi_startproc
	pushq	%rbp
	movq	16(%rsp), %rax
.LBB0_1:
	vpbroadcastd	(%rdi), %ymm1
.LBB0_2:
	vmovdqu	(%rbp), %ymm0
	{vex}	vpdpbusd	%ymm1, %ymm0, %ymm2
	vmovups	%ymm2, -8(%rsp)
	jb	.LBB0_2
	vaddps	%ymm1, %ymm1, %ymm1
	callq	memcpy@PLT
	jne	.LBB0_1
	retq
	callq	*_RN4core9panicking18panic_bounds_check@GOTPCREL(%rip)
	ud2
.Lfunc_end0:
	.quad	1
";

    #[test]
    fn the_hot_loop_is_the_innermost_one_with_dots() {
        let found = functions(ASSEMBLY);
        assert_eq!(found.len(), 1);
        assert_eq!(kernel(found[0].0), Some(("v3".to_string(), "gemm_bias".to_string())));
        let hot = Loop { dots: 1, arithmetic: 0, instructions: 4, stack: 1 };
        let expected = Facts { instructions: 13, dots: 1, hot, stack: 2, calls: 1, panics: 2 };
        assert_eq!(count(&found[0].1), expected);
    }

    #[test]
    fn other_symbols_are_no_kernels() {
        for symbol in ["_ZN4demo4plan6decode17h00E", "_ZN4demo7kernels2v3E", "7kernels99", ""] {
            assert_eq!(kernel(symbol), None, "{symbol}");
        }
    }
}
