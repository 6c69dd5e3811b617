//! The sampler against plain implementations that sort everything, and against cases worked out by hand.

use super::*;

/// The whole chain, written as its definition reads. Gives (token, probability).
fn plain(logits: &[f32], o: &SamplerOptions, history: &[u32]) -> Vec<(u32, f64)> {
    let mut x: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
    for &(id, bias) in &o.logit_bias {
        x[id as usize] += f64::from(bias);
    }
    let recent = &history[history.len().saturating_sub(o.repeat_last_n)..];
    for (id, x) in x.iter_mut().enumerate() {
        let count = recent.iter().filter(|&&r| r as usize == id).count();
        if count > 0 {
            let repeat = f64::from(o.repeat_penalty);
            *x = if *x > 0.0 { *x / repeat } else { *x * repeat };
            *x -= count as f64 * f64::from(o.frequency_penalty) + f64::from(o.presence_penalty);
        }
    }
    let softmax = |list: &[(u32, f64)]| -> Vec<f64> {
        let max = list.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = list.iter().map(|c| (c.1 - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    };
    let prefix = |list: &[(u32, f64)], p: &[f64], enough: &dyn Fn(f64) -> bool| {
        let mut mass = 0.0;
        let n = p.iter().position(|p| {
            mass += p;
            enough(mass)
        });
        list[..n.map_or(list.len(), |n| n + 1)].to_vec()
    };

    let mut list: Vec<(u32, f64)> = (0..).zip(x).filter(|c| c.1 > f64::NEG_INFINITY).collect();
    list.sort_by(|a, b| b.1.total_cmp(&a.1));
    if o.top_k > 0 {
        list.truncate(o.top_k);
    }
    if o.typical_p < 1.0 {
        let p = softmax(&list);
        let entropy: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by(|&a, &b| (-p[a].ln() - entropy).abs().total_cmp(&(-p[b].ln() - entropy).abs()));
        let (list2, p): (Vec<_>, Vec<_>) = order.iter().map(|&i| (list[i], p[i])).unzip();
        list = prefix(&list2, &p, &|mass| mass > f64::from(o.typical_p));
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
    }
    if o.top_p < 1.0 {
        list = prefix(&list, &softmax(&list), &|mass| mass >= f64::from(o.top_p));
    }
    if o.min_p > 0.0 {
        let p = softmax(&list);
        let keep = p.iter().filter(|&&x| x >= f64::from(o.min_p) * p[0]).count();
        list.truncate(keep);
    }
    for c in &mut list {
        c.1 /= f64::from(o.temperature);
    }
    let p = softmax(&list);
    list.iter().zip(p).map(|(c, p)| (c.0, p)).collect()
}

fn off() -> SamplerOptions {
    SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Default::default() }
}

/// Roughly normal, spread so that a few tokens dominate.
fn random_logits(rng: &mut SplitMix64, n: usize) -> Vec<f32> {
    (0..n).map(|_| ((0..6).map(|_| rng.next_f64()).sum::<f64>() * 4.0 - 12.0) as f32).collect()
}

/// The candidates left for the draw, sorted by id.
fn left(logits: &[f32], options: SamplerOptions, history: &[u32]) -> Vec<u32> {
    let mut sampler = Sampler::new(options).unwrap();
    history.iter().for_each(|&id| sampler.accept(id));
    sampler.sample(logits).unwrap();
    let mut ids: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn agrees_with_the_plain_chain() {
    let mut rng = SplitMix64::new(1);
    for round in 0..300 {
        let n = [3, 50, 1000, 5000][round % 4];
        let mut logits = random_logits(&mut rng, n);
        logits[rng.next_u64() as usize % n] = f32::NEG_INFINITY;
        let mut pick = |choices: &[f32]| choices[rng.next_u64() as usize % choices.len()];
        let options = SamplerOptions {
            temperature: pick(&[0.3, 1.0, 1.7]),
            top_k: pick(&[0.0, 1.0, 7.0, 40.0, 700.0]) as usize,
            top_p: pick(&[1.0, 0.95, 0.5, 0.0]),
            min_p: pick(&[0.0, 0.05, 0.5]),
            typical_p: pick(&[1.0, 0.9, 0.3]),
            repeat_penalty: pick(&[1.0, 1.3]),
            repeat_last_n: pick(&[0.0, 3.0, 64.0]) as usize,
            presence_penalty: pick(&[0.0, 0.7]),
            frequency_penalty: pick(&[0.0, 0.4]),
            logit_bias: if round % 3 == 0 { vec![(1, 2.5), (2, f32::NEG_INFINITY)] } else { Vec::new() },
            seed: round as u64,
        };
        let history: Vec<u32> = (0..10).map(|_| (rng.next_u64() % n as u64) as u32 / 2).collect();
        let mut expected: Vec<u32> = plain(&logits, &options, &history).iter().map(|c| c.0).collect();
        expected.sort_unstable();
        assert_eq!(left(&logits, options.clone(), &history), expected, "{options:?}");
    }
}

#[test]
fn filters_keep_what_was_worked_out_by_hand() {
    // Probabilities 0.1, 0.4, 0.2, 0.3.
    let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].iter().map(|p| p.ln()).collect();
    assert_eq!(left(&logits, SamplerOptions { top_k: 2, ..off() }, &[]), [1, 3]);
    assert_eq!(left(&logits, SamplerOptions { top_k: 9, ..off() }, &[]), [0, 1, 2, 3]);
    assert_eq!(left(&logits, SamplerOptions { top_p: 0.65, ..off() }, &[]), [1, 3]);
    assert_eq!(left(&logits, SamplerOptions { top_p: 0.75, ..off() }, &[]), [1, 2, 3]);
    assert_eq!(left(&logits, SamplerOptions { top_p: 0.0, ..off() }, &[]), [1]);
    assert_eq!(left(&logits, SamplerOptions { min_p: 0.6, ..off() }, &[]), [1, 3]);
    assert_eq!(left(&logits, SamplerOptions { min_p: 1.0, ..off() }, &[]), [1]);
    // Surprise 2.303, 0.916, 1.609, 1.204; the expected one is 1.280: nearest are 3, 2, 1, 0.
    assert_eq!(left(&logits, SamplerOptions { typical_p: 0.2, ..off() }, &[]), [3]);
    assert_eq!(left(&logits, SamplerOptions { typical_p: 0.45, ..off() }, &[]), [2, 3]);
    assert_eq!(left(&logits, SamplerOptions { typical_p: 0.6, ..off() }, &[]), [1, 2, 3]);
    // Top-k first: of 0.4 and 0.3 alone, the best has 0.57.
    assert_eq!(left(&logits, SamplerOptions { top_k: 2, top_p: 0.56, ..off() }, &[]), [1]);
}

#[test]
fn penalties_do_what_was_worked_out_by_hand() {
    let options = SamplerOptions {
        repeat_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        repeat_last_n: 3,
        logit_bias: vec![(3, 1.0), (3, 1.0)],
        ..off()
    };
    let mut sampler = Sampler::new(options).unwrap();
    for id in [2, 0, 1, 0, 99] {
        sampler.accept(id); // the last three count: 1, 0, 99
    }
    let mut logits = [4.0, -1.0, 3.0, 0.5];
    sampler.adjust(&mut logits).unwrap();
    assert_eq!(logits, [4.0 / 2.0 - 0.75, -2.0 - 0.75, 3.0, 2.5]);
    sampler.accept(0); // now 0, 99, 0
    let mut logits = [4.0, -1.0, 3.0, 0.5];
    sampler.adjust(&mut logits).unwrap();
    assert_eq!(logits, [4.0 / 2.0 - 1.0, -1.0, 3.0, 2.5]);
}

#[test]
fn greedy_takes_the_first_maximum() {
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    assert_eq!(sampler.sample(&[1.0, 5.0, 5.0, -2.0]).unwrap(), 1);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -3.0, -0.0, 0.0]).unwrap(), 2);
    let biased = SamplerOptions { logit_bias: vec![(1, f32::NEG_INFINITY)], ..SamplerOptions::greedy() };
    assert_eq!(Sampler::new(biased).unwrap().sample(&[1.0, 5.0, 5.0]).unwrap(), 2);
    for n in 1..70 {
        let logits: Vec<f32> = (0..n).map(|i| -((i - n / 2) as f32).abs()).collect();
        assert_eq!(sampler.sample(&logits).unwrap(), (n / 2) as u32);
    }
}

#[test]
fn draws_follow_the_distribution() {
    let logits = random_logits(&mut SplitMix64::new(3), 100);
    for options in [
        off(),
        SamplerOptions { seed: 5, ..SamplerOptions::default() },
        SamplerOptions { temperature: 2.0, typical_p: 0.8, ..off() },
    ] {
        let expected = plain(&logits, &options, &[]);
        let mut sampler = Sampler::new(options.clone()).unwrap();
        let draws = 50_000;
        let mut seen = vec![0u32; logits.len()];
        for _ in 0..draws {
            seen[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        assert_eq!(seen.iter().sum::<u32>(), expected.iter().map(|c| seen[c.0 as usize]).sum::<u32>());
        let expected: Vec<(f64, f64)> =
            expected.iter().map(|&(id, p)| (f64::from(seen[id as usize]), p * f64::from(draws))).collect();
        // Rare tokens are one class, for chi-square needs a few counts in each.
        let rare = expected.iter().filter(|c| c.1 < 5.0).fold((0.0, 0.0), |a, c| (a.0 + c.0, a.1 + c.1));
        let classes: Vec<_> =
            expected.into_iter().filter(|c| c.1 >= 5.0).chain([rare]).filter(|c| c.1 > 0.0).collect();
        let chi2: f64 = classes.iter().map(|(seen, expected)| (seen - expected).powi(2) / expected).sum();
        let freedom = classes.len() as f64 - 1.0;
        // Mean and standard deviation of the chi-square distribution; four deviations are one case in 30 000.
        assert!(chi2 < freedom + 4.0 * (2.0 * freedom).sqrt(), "{options:?}: {chi2} for {freedom}");
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let logits = random_logits(&mut SplitMix64::new(4), 2000);
    let run = |seed| -> Vec<u32> {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..SamplerOptions::default() }).unwrap();
        let first: Vec<u32> = (0..50).map(|_| sampler.sample(&logits).unwrap()).collect();
        sampler.reset();
        assert_eq!(first, (0..50).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
        first
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9), run(10));
}

#[test]
fn ties_go_to_the_lower_id() {
    let logits = vec![1.0; 500];
    assert_eq!(left(&logits, SamplerOptions { top_k: 3, ..off() }, &[]), [0, 1, 2]);
    assert_eq!(left(&logits, SamplerOptions { top_p: 0.005, ..off() }, &[]), [0, 1, 2]);
    assert_eq!(top_logprobs(&logits, 2).unwrap().iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn infinite_and_missing_logits() {
    const INF: f32 = f32::INFINITY;
    let mut sampler = Sampler::new(SamplerOptions { typical_p: 0.9, ..Default::default() }).unwrap();
    for _ in 0..100 {
        assert!([1, 3].contains(&sampler.sample(&[5.0, INF, -INF, INF]).unwrap()));
        assert_eq!(sampler.sample(&[-INF, -INF, -3e38]).unwrap(), 2);
    }
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(SamplerOptions { temperature, ..Default::default() }).unwrap();
        let message = |result: Result<u32>| result.unwrap_err().to_string();
        assert_eq!(message(sampler.sample(&[0.0, f32::NAN])), "the logit of token 1 is NaN");
        assert_eq!(message(sampler.sample(&[-INF, -INF])), "all 2 logits are -inf");
        assert_eq!(message(sampler.sample(&[])), "there are no logits");
    }
    let mut tiny = Sampler::new(SamplerOptions { temperature: f32::MIN_POSITIVE, ..off() }).unwrap();
    assert_eq!(tiny.sample(&[1.0, 1.5, -INF]).unwrap(), 1);
    let mut hot = Sampler::new(SamplerOptions { temperature: f32::MAX, ..off() }).unwrap();
    assert!(hot.sample(&[1.0, 1.5, -INF]).unwrap() < 2);
}

#[test]
fn options_out_of_range_are_named() {
    let message = |options: SamplerOptions| Sampler::new(options).unwrap_err().to_string();
    assert_eq!(
        message(SamplerOptions { temperature: -1.0, ..off() }),
        "temperature: expected a finite number, 0 or more, got -1"
    );
    assert!(message(SamplerOptions { top_p: 1.5, ..off() }).starts_with("top_p: "));
    assert!(message(SamplerOptions { min_p: f32::NAN, ..off() }).starts_with("min_p: "));
    assert!(message(SamplerOptions { typical_p: -0.1, ..off() }).starts_with("typical_p: "));
    assert!(message(SamplerOptions { repeat_penalty: 0.0, ..off() }).starts_with("repeat_penalty: "));
    assert!(message(SamplerOptions { presence_penalty: f32::INFINITY, ..off() })
        .starts_with("presence_penalty: "));
    assert!(message(SamplerOptions { logit_bias: vec![(7, f32::NAN)], ..off() }).contains("token 7"));
    let mut sampler = Sampler::new(SamplerOptions { logit_bias: vec![(7, 1.0)], ..off() }).unwrap();
    assert_eq!(
        sampler.sample(&[0.0; 7]).unwrap_err().to_string(),
        "logit_bias: token 7 is outside the vocabulary of 7"
    );
    let partial: SamplerOptions = serde_json::from_str(r#"{"top_k": 3, "logit_bias": [[5, -1.5]]}"#).unwrap();
    assert_eq!(partial, SamplerOptions { top_k: 3, logit_bias: vec![(5, -1.5)], ..Default::default() });
}

#[test]
fn log_probabilities() {
    let logits = [1000.0, 1000.0 + 3f32.ln(), f32::NEG_INFINITY];
    let expected = [0.25f64.ln(), 0.75f64.ln()];
    let all = log_softmax(&logits).unwrap();
    assert!(all.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{all:?}");
    assert_eq!(all[2], f64::NEG_INFINITY);
    assert_eq!(top_logprobs(&logits, 5).unwrap(), [(1, all[1]), (0, all[0])]);
    assert_eq!(logprob(&logits, 1).unwrap(), all[1]);
    assert!(logprob(&logits, 3).is_err());
    assert_eq!(log_softmax(&[f32::INFINITY, 1.0]).unwrap(), [0.0, f64::NEG_INFINITY]);

    let logits = random_logits(&mut SplitMix64::new(8), 150_000);
    let sum: f64 = log_softmax(&logits).unwrap().iter().map(|l| l.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    let mut sorted: Vec<(u32, f64)> = (0..).zip(log_softmax(&logits).unwrap()).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(top_logprobs(&logits, 100).unwrap(), sorted[..100]);
}
