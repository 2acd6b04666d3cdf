//! From times to a schedule.

use kernels::library::{Choice, Schedule};

use super::plan::Plan;

/// The least gain that is worth leaving the model of the machine for, if noise is smaller.
const LEAST_GAIN: f64 = 0.005;

/// Seconds of every variant of every call.
pub struct Times {
    /// By call, then by variant.
    pub seconds: Vec<Vec<f64>>,
    /// Of the first variant of each call, timed again.
    pub again: Vec<f64>,
}

/// What was measured of one number.
pub struct Finding {
    /// The number.
    pub choice: Choice,
    /// Each schedule that was tried with the seconds of all calls it changes, the model's first.
    pub tried: Vec<(Schedule, f64)>,
    /// How much the model's schedule differs from itself in those calls, as a share.
    pub noise: f64,
    /// Which of `tried` is taken.
    pub taken: usize,
}

impl Finding {
    /// The share of time that what is taken saves.
    pub fn gain(&self) -> f64 {
        1.0 - self.tried[self.taken].1 / self.tried[0].1
    }
}

impl Times {
    /// Reads the lines of the program that a plan makes.
    ///
    /// # Errors
    /// The line that is not one of its.
    pub fn parse(plan: &Plan, text: &str) -> Result<Times, String> {
        let mut times = Times {
            seconds: plan.calls.iter().map(|call| vec![f64::NAN; call.count()]).collect(),
            again: vec![f64::NAN; plan.calls.len()],
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse::<usize>().ok();
            let slot = match words[..] {
                ["time", call, variant, _] => number(call)
                    .and_then(|call| times.seconds.get_mut(call))
                    .zip(number(variant))
                    .and_then(|(of_call, variant)| of_call.get_mut(variant)),
                ["again", call, _] => number(call).and_then(|call| times.again.get_mut(call)),
                _ => None,
            };
            let value = words.last().and_then(|word| word.parse::<f64>().ok()).filter(|s| s.is_finite() && *s > 0.0);
            match (slot, value) {
                (Some(slot), Some(value)) => *slot = value,
                _ => return Err(format!("unexpected line {line:?}")),
            }
        }
        let missing = times.seconds.iter().flatten().chain(&times.again).any(|s| s.is_nan());
        if missing { Err("times are missing".to_string()) } else { Ok(times) }
    }

    /// Seconds of the calls that any of these schedules changes, with schedule `of`; none if there are no such calls.
    fn total(&self, plan: &Plan, changed_by: &[usize], of: usize) -> f64 {
        self.sum(plan, changed_by, |i| self.seconds[i][plan.calls[i].variants[of]])
    }

    fn sum(&self, plan: &Plan, changed_by: &[usize], seconds: impl Fn(usize) -> f64) -> f64 {
        let calls = plan.calls.iter().enumerate();
        let changed = calls.filter(|(_, call)| changed_by.iter().any(|&s| call.variants[s] != call.variants[0]));
        changed.map(|(i, call)| call.times * seconds(i)).sum()
    }

    /// What was measured of the schedules `others`, which differ from the first one in one number.
    fn finding(&self, plan: &Plan, choice: Choice, others: &[usize]) -> Option<Finding> {
        let base = self.total(plan, others, 0);
        if base == 0.0 {
            return None;
        }
        let again = self.sum(plan, others, |i| self.again[i]);
        let tried = [0].iter().chain(others).map(|&s| (plan.schedules[s].1, self.total(plan, others, s))).collect();
        let mut finding = Finding { choice, tried, noise: (again / base - 1.0).abs(), taken: 0 };
        let best = (0..finding.tried.len()).min_by(|&a, &b| finding.tried[a].1.total_cmp(&finding.tried[b].1));
        finding.taken = best.unwrap_or(0);
        if finding.gain() <= LEAST_GAIN.max(2.0 * finding.noise) {
            finding.taken = 0;
        }
        Some(finding)
    }
}

/// The winner of each number that matters to the model, and the schedule of all winners.
pub fn choose(plan: &Plan, times: &Times) -> (Vec<Finding>, Schedule) {
    let mut schedule = plan.schedules[0].1;
    let mut findings = Vec::new();
    for choice in Choice::ALL {
        let others: Vec<usize> = (0..plan.schedules.len()).filter(|&s| plan.schedules[s].0 == Some(choice)).collect();
        if let Some(finding) = times.finding(plan, choice, &others) {
            choice.take(&mut schedule, &finding.tried[finding.taken].0);
            findings.push(finding);
        }
    }
    (findings, schedule)
}

/// Seconds of the model's schedule and of the other one in the calls that differ, and the noise as a share.
pub fn compare(plan: &Plan, times: &Times) -> (f64, f64, f64) {
    let base = times.total(plan, &[1], 0);
    let noise = (times.sum(plan, &[1], |i| times.again[i]) / base - 1.0).abs();
    (base, times.total(plan, &[1], 1), noise)
}
