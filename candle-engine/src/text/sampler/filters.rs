//! The rules that narrow the choice: each keeps a part of the candidates.
//!
//! None sorts a vocabulary. Candidates with a logit of -inf are left out from the start. All orders are total (equal
//! logits: the lower id first), so the result depends on nothing but the logits.

use std::cmp::Ordering;

use super::logprobs::{weight, LogSoftmax};

/// A token that may be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
}

/// The more probable candidate first.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    // Not `total_cmp`: -0.0 and 0.0 are equally probable. NaN was refused before.
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

fn candidates(logits: &[f32]) -> impl Iterator<Item = Candidate> + '_ {
    let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit });
    all.filter(|c| c.logit > f32::NEG_INFINITY)
}

/// Puts every possible candidate into `out`, in order of id.
pub(super) fn all(logits: &[f32], out: &mut Vec<Candidate>) {
    out.clear();
    out.extend(candidates(logits));
}

/// Puts the `k` best candidates into `out`, best first.
pub(super) fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    let k = k.min(logits.len());
    out.clear();
    if k == 0 {
        return;
    }
    // One pass that looks at most logits only once: whatever does not beat the k-th best so far is out. An equal
    // logit is out too, for its id is higher. The list may grow to twice k before the best half is picked again.
    let full = (2 * k).max(64);
    let mut bar = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > bar {
            out.push(Candidate { id: id as u32, logit });
            if out.len() == full {
                out.select_nth_unstable_by(k - 1, best_first);
                out.truncate(k);
                bar = out[k - 1].logit;
            }
        }
    }
    keep_first(out, k, best_first);
}

/// Sorts the first `k` candidates to the front and drops the others.
fn keep_first(list: &mut Vec<Candidate>, k: usize, order: impl Fn(&Candidate, &Candidate) -> Ordering) {
    if k < list.len() {
        list.select_nth_unstable_by(k, &order);
        list.truncate(k);
    }
    list.sort_unstable_by(order);
}

/// The sum of all weights, which makes probabilities of them.
pub(super) fn total(list: &[Candidate], max: f32) -> f64 {
    list.iter().map(|c| weight(c.logit, max)).sum()
}

/// Keeps the smallest set of best candidates that together have the probability `p`, weights over `total`; at least one.
///
/// Source: Holtzman et al., "The curious case of neural text degeneration", ICLR 2020.
pub(super) fn top_p(list: &mut Vec<Candidate>, max: f32, total: f64, p: f64) {
    keep_mass(list, best_first, |c| weight(c.logit, max) / total, |mass| mass >= p);
}

/// Keeps the candidates whose surprise is nearest to the expected one, until they have more than the probability `p`.
///
/// Source: Meister et al., "Locally typical sampling", TACL 2023.
pub(super) fn typical(list: &mut Vec<Candidate>, max: f32, p: f64) {
    let softmax = LogSoftmax::new(max, list.iter().map(|c| c.logit));
    let entropy: f64 =
        list.iter().map(|c| softmax.of(c.logit)).filter(|l| l.is_finite()).map(|l| -l * l.exp()).sum();
    let distance = |c: &Candidate| (-softmax.of(c.logit) - entropy).abs();
    let order =
        |a: &Candidate, b: &Candidate| distance(a).total_cmp(&distance(b)).then_with(|| best_first(a, b));
    keep_mass(list, order, |c| softmax.of(c.logit).exp(), |mass| mass > p);
}

/// Keeps the candidates at least `p` times as probable as the best one.
pub(super) fn min_p(list: &mut Vec<Candidate>, max: f32, p: f64) {
    list.retain(|c| weight(c.logit, max) >= p);
}

/// Keeps the shortest beginning of `list`, in `order`, whose probability is `enough`; sorts no more than about that.
fn keep_mass(
    list: &mut Vec<Candidate>,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    probability: impl Fn(&Candidate) -> f64,
    enough: impl Fn(f64) -> bool,
) {
    let (mut sorted, mut mass) = (0, 0.0);
    while sorted < list.len() {
        // In sharp distributions the first step is enough; each further one quadruples what is sorted.
        let step = (3 * sorted).max(256).min(list.len() - sorted);
        let rest = &mut list[sorted..];
        if step < rest.len() {
            rest.select_nth_unstable_by(step, &order);
        }
        rest[..step].sort_unstable_by(&order);
        for at in sorted..sorted + step {
            mass += probability(&list[at]);
            if enough(mass) {
                list.truncate(at + 1);
                return;
            }
        }
        sorted += step;
    }
}
