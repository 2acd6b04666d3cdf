//! The tests of the web package, in Node and, where there is one, in a browser.

use std::path::PathBuf;

use crate::report::Outcome;
use crate::shell;

/// What the tests use from the npm registry.
const PACKAGES: [&str; 5] =
    ["playwright-core@1.65.1", "typescript@7.0.2", "@types/node@26.6.6", "vite@8.3.8", "webpack@5.113.0"];

/// The variable that names the folder of these packages to the tests.
const TOOLS: &str = "TVLMC_WEB_TOOLS";

/// Where they are put.
pub fn tools() -> Result<PathBuf, String> {
    Ok(shell::cache()?.join("web-tools"))
}

/// Runs the tests; what they skipped is collected.
pub fn tests(skipped: &mut Vec<String>) -> Result<Outcome, String> {
    if shell::ask("node", &["--version"]).is_none() {
        return Ok(Outcome::Skipped("no node; install Node.js 20 or later".to_string()));
    }
    let mut command = shell::command("node", &["web/test/all.js"]);
    let folder = tools()?;
    if std::env::var_os(TOOLS).is_none() && folder.join("node_modules").is_dir() {
        command.env(TOOLS, &folder);
    }
    let mut figures = String::new();
    let good = shell::run_lines(&mut command, |line| {
        if let Some(reason) = line.trim().strip_prefix("skipped:") {
            skipped.push(reason.trim().to_string());
        } else if let Some(told) = line.strip_prefix("web package: ") {
            figures = told.to_string();
        } else {
            println!("{line}");
        }
    })?;
    Ok(if good { Outcome::Good(figures) } else { Outcome::Bad(figures) })
}

/// Installs the packages, and says what is missing.
pub fn setup() -> Result<(), String> {
    let folder = tools()?;
    if shell::ask("npm", &["--version"]).is_none() {
        println!("web tools: no npm; Node.js 20 or later has it, and without it these tests are skipped");
        return Ok(());
    }
    let there = PACKAGES.iter().all(|package| {
        let name = package.rsplit_once('@').map_or(*package, |(name, _)| name);
        folder.join("node_modules").join(name).is_dir()
    });
    if there {
        println!("web tools: there");
        return Ok(());
    }
    std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create {}: {e}", folder.display()))?;
    let mut command = shell::command("npm", &["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]);
    let good = shell::run(command.arg(&folder).args(PACKAGES))?;
    println!("web tools: {}", if good { "installed" } else { "npm could not install them; their tests are skipped" });
    Ok(())
}
