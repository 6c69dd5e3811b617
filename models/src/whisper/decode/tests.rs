//! The rules of decoding on logits that are made up.

use candle_engine::text::Tokenizer;
use candle_engine::Result;

use super::super::Tokens;
use super::inference::Begun;
use super::window::decode;
use super::*;

/// Text is a byte a token; the times are 101.
fn tokens() -> Tokens {
    let text: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    let mut special: Vec<String> =
        ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>"].map(str::to_owned).to_vec();
    special.extend(
        [
            "<|translate|>",
            "<|transcribe|>",
            "<|startoflm|>",
            "<|startofprev|>",
            "<|nospeech|>",
            "<|notimestamps|>",
        ]
        .map(str::to_owned),
    );
    let vocab = text.len() + special.len() + 101;
    Tokens::new(Tokenizer::from_ranks(&text, &special).unwrap(), vocab, Some(true)).unwrap()
}

const SILENCE: f32 = 8.0;

/// A model that says what it is told to: after each row's tokens so far, the tokens that come next and their logits.
/// All others have logit 0.
struct Script<F> {
    vocab: usize,
    no_speech: Option<u32>,
    say: F,
    rows: Vec<Vec<u32>>,
    /// Prompts that were fed, and rows of each step.
    prompts: usize,
    widths: Vec<usize>,
}

impl<F: FnMut(&[u32]) -> Vec<(u32, f32)>> Script<F> {
    fn new(tokens: &Tokens, say: F) -> Self {
        let vocab = tokens.timestamp_begin as usize + 101;
        Self { vocab, no_speech: None, say, rows: Vec::new(), prompts: 0, widths: Vec::new() }
    }

    fn logits(&mut self, row: usize) -> Vec<f32> {
        let mut logits = vec![0.0; self.vocab];
        for (id, logit) in (self.say)(&self.rows[row]) {
            logits[id as usize] = logit;
        }
        logits
    }
}

impl<F: FnMut(&[u32]) -> Vec<(u32, f32)>> Inference for Script<F> {
    fn begin(&mut self, prompts: &[Prompt]) -> Result<Vec<Begun>> {
        self.rows = prompts.iter().map(|_| Vec::new()).collect();
        self.prompts += prompts.len();
        let begun = (0..prompts.len()).map(|row| {
            let mut at_start = vec![0.0; self.vocab];
            if let Some(id) = self.no_speech {
                at_start[id as usize] = SILENCE;
            }
            Begun { at_start, last: self.logits(row) }
        });
        Ok(begun.collect())
    }

    fn step(&mut self, rows: &[(usize, u32)]) -> Result<Vec<Vec<f32>>> {
        self.rows = rows.iter().map(|&(row, token)| [&self.rows[row][..], &[token]].concat()).collect();
        self.widths.push(rows.len());
        Ok((0..rows.len()).map(|row| self.logits(row)).collect())
    }
}

fn prompt(tokens: &Tokens) -> Prompt {
    Prompt { tokens: tokens.start("en", Default::default()).unwrap(), ..Prompt::default() }
}

/// A time, a text, a time, the end: one after the other, each sure.
fn saying<'a>(tokens: &'a Tokens, text: &str) -> impl FnMut(&[u32]) -> Vec<(u32, f32)> + 'a {
    let begin = tokens.timestamp_begin;
    let mut all = vec![begin];
    all.extend(tokens.encode(text).unwrap());
    all.push(begin + 100);
    move |said| vec![(all.get(said.len()).copied().unwrap_or(tokens.eot), 20.0)]
}

fn run(tokens: &Tokens, model: &mut dyn Inference, temperatures: &[f32]) -> (Decoded, Vec<Attempt>) {
    let frame = Frame { tokens, context: 448, precision: 0.02 };
    let (options, thresholds) = (DecodeOptions::default(), Thresholds::default());
    let prompts = [prompt(tokens)];
    decode_with_fallback(model, &frame, &prompts, &options, temperatures, &thresholds).unwrap().remove(0)
}

const LADDER: [f32; 3] = [0.0, 0.5, 1.0];

#[test]
fn a_sure_text_is_accepted_at_once() {
    let tokens = tokens();
    let (decoded, attempts) =
        run(&tokens, &mut Script::new(&tokens, saying(&tokens, " Hello there.")), &LADDER);
    assert_eq!(decoded.text, "Hello there.");
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].verdict, decoded.temperature), (Verdict::Accepted, 0.0));
    assert!(decoded.avg_logprob > -0.01 && decoded.compression_ratio < 1.5);
}

/// The loop that a port which does not compress cannot see: every token of it is likely.
#[test]
fn a_repeated_phrase_is_retried_at_a_higher_temperature() {
    let tokens = tokens();
    let phrase = " I'm going to the other side of it.".repeat(6);
    let mut looping = saying(&tokens, &phrase);
    let mut good = saying(&tokens, " It was a good day.");
    // At a temperature above 0 the third attempt finds something else.
    let mut begun = 0;
    let mut model = Script::new(&tokens, |said: &[u32]| {
        begun += usize::from(said.is_empty());
        if begun < 3 {
            looping(said)
        } else {
            good(said)
        }
    });
    let (decoded, attempts) = run(&tokens, &mut model, &LADDER);
    let verdicts: Vec<Verdict> = attempts.iter().map(|attempt| attempt.verdict).collect();
    assert_eq!(verdicts, [Verdict::Repetitive, Verdict::Repetitive, Verdict::Accepted]);
    assert!(attempts[0].compression_ratio > 2.4 && attempts[0].avg_logprob > -0.01, "{attempts:?}");
    assert_eq!((decoded.text.as_str(), decoded.temperature), ("It was a good day.", 1.0));
}

#[test]
fn an_unlikely_text_is_retried_and_the_last_one_is_kept() {
    let tokens = tokens();
    // Two hundred tokens that are all alike: a logit of 1 leaves each less than e^-4.
    let mut text = saying(&tokens, " vague");
    let mut model =
        Script::new(&tokens, |said: &[u32]| text(said).into_iter().map(|(id, _)| (id, 1.0)).collect());
    let (decoded, attempts) = run(&tokens, &mut model, &[0.0, 0.0]);
    assert_eq!(attempts.len(), 2);
    assert!(attempts.iter().all(|attempt| attempt.verdict == Verdict::Unlikely), "{attempts:?}");
    assert!(decoded.avg_logprob < -1.0);
    assert!(!Thresholds::default().skips(&decoded), "nothing says that nobody speaks");
}

#[test]
fn silence_is_not_retried() {
    let tokens = tokens();
    let mut text = saying(&tokens, " Thank you.");
    let mut model =
        Script::new(&tokens, |said: &[u32]| text(said).into_iter().map(|(id, _)| (id, 1.0)).collect());
    model.no_speech = tokens.no_speech;
    let (decoded, attempts) = run(&tokens, &mut model, &LADDER);
    assert_eq!((attempts.len(), attempts[0].verdict), (1, Verdict::Silent));
    assert!(decoded.no_speech_prob > 0.6 && Thresholds::default().skips(&decoded));
    // What is likely is believed all the same.
    let mut model = Script::new(&tokens, saying(&tokens, " Thank you."));
    model.no_speech = tokens.no_speech;
    let (decoded, attempts) = run(&tokens, &mut model, &LADDER);
    assert_eq!(attempts[0].verdict, Verdict::Accepted);
    assert!(decoded.no_speech_prob > 0.6 && !Thresholds::default().skips(&decoded));
}

#[test]
fn thresholds_that_are_not_set_ask_nothing() {
    let decoded = Decoded {
        tokens: Vec::new(),
        text: String::new(),
        avg_logprob: -9.0,
        no_speech_prob: 0.99,
        temperature: 0.0,
        compression_ratio: 9.0,
    };
    let none = Thresholds { compression_ratio: None, logprob: None, no_speech: None };
    assert_eq!((none.judge(&decoded), none.skips(&decoded)), (Verdict::Accepted, false));
    // Without a threshold for likelihood silence decides alone.
    let silence = Thresholds { no_speech: Some(0.6), ..none };
    assert_eq!((silence.judge(&decoded), silence.skips(&decoded)), (Verdict::Accepted, true));
    let repeats = Thresholds { compression_ratio: Some(2.4), ..none };
    assert_eq!(repeats.judge(&decoded), Verdict::Repetitive);
}

/// `x` is likelier than `a`, but what follows `a` is surer.
fn forked(tokens: &Tokens) -> impl FnMut(&[u32]) -> Vec<(u32, f32)> + '_ {
    let id = |text: &str| tokens.encode(text).unwrap()[0];
    let (a, b, x, begin, eot) = (id("a"), id("b"), id("x"), tokens.timestamp_begin, tokens.eot);
    move |said| match said {
        [] => vec![(begin, 30.0)],
        [_] => vec![(x, 10.5), (a, 10.0)],
        [_, first] if *first == x => vec![(b, 10.0), (x, 10.0), (a, 10.0)],
        [_, _] => vec![(b, 30.0)],
        [.., last] if *last >= begin => vec![(eot, 30.0)],
        _ => vec![(begin + 50, 30.0)],
    }
}

#[test]
fn beams_find_what_greed_misses() {
    let tokens = tokens();
    let frame = Frame { tokens: &tokens, context: 448, precision: 0.02 };
    let decode = |beam_size, patience| {
        let mut model = Script::new(&tokens, forked(&tokens));
        let options = DecodeOptions { beam_size, patience, ..DecodeOptions::default() };
        let decoded = decode(&mut model, &frame, &[prompt(&tokens)], &options).unwrap().remove(0);
        (decoded.text, model.widths)
    };
    assert_eq!(decode(None, 1.0).0.chars().next(), Some('x'));
    let (text, widths) = decode(Some(2), 1.0);
    assert_eq!(text, "ab");
    assert!(widths.iter().all(|&rows| rows <= 2), "{widths:?}");
    let (patient, longer) = decode(Some(2), 3.0);
    assert_eq!(patient, "ab");
    assert!(longer.len() > widths.len(), "patience waits for more texts to end");
}

#[test]
fn windows_do_not_wait_for_each_other_and_get_what_they_get_alone() {
    let tokens = tokens();
    let frame = Frame { tokens: &tokens, context: 448, precision: 0.02 };
    // The longer a text, the likelier its end: windows that draw end at different times.
    let say = |said: &[u32]| vec![(tokens.eot, said.len() as f32)];
    let options =
        DecodeOptions { temperature: 0.8, best_of: 3, without_timestamps: true, ..DecodeOptions::default() };
    let prompts: Vec<Prompt> =
        (0..3).map(|i| Prompt { seed: 1000 * i, window: i as usize, ..prompt(&tokens) }).collect();
    let mut model = Script::new(&tokens, say);
    let together = decode(&mut model, &frame, &prompts, &options).unwrap();
    assert_eq!(model.widths[0], 9, "three texts of three windows");
    assert!(model.widths.last() < Some(&9), "those that have ended are not continued: {:?}", model.widths);
    for (prompt, together) in prompts.iter().zip(together) {
        let alone = decode(&mut Script::new(&tokens, say), &frame, std::slice::from_ref(prompt), &options);
        let alone = alone.unwrap().remove(0);
        assert_eq!(alone, together);
    }
}

#[test]
fn length_is_bounded() {
    let tokens = tokens();
    let endless = |_: &[u32]| vec![(tokens.encode("a").unwrap()[0], 30.0)];
    let options = DecodeOptions { without_timestamps: true, ..DecodeOptions::default() };
    for (context, sample_len, expected) in [(448, Some(7), 7), (40, None, 20), (10, Some(100), 8)] {
        let frame = Frame { tokens: &tokens, context, precision: 0.02 };
        let options = DecodeOptions { sample_len, ..options.clone() };
        let mut model = Script::new(&tokens, endless);
        let decoded = decode(&mut model, &frame, &[prompt(&tokens)], &options).unwrap().remove(0);
        assert_eq!(decoded.tokens.len(), expected, "{context} {sample_len:?}");
    }
}

#[test]
fn languages_are_told_by_their_tokens_alone() {
    let tokens = tokens();
    let german = tokens.language("de").unwrap();
    let mut model = Script::new(&tokens, |_: &[u32]| vec![(german, 2.0), (tokens.eot, 50.0)]);
    let found = detect(&tokens, &mut model).unwrap();
    assert_eq!(found.iter().map(|l| l.code).collect::<Vec<_>>(), ["de", "en"]);
    assert!((found[0].probability - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-6);
    assert!((found.iter().map(|l| l.probability).sum::<f64>() - 1.0).abs() < 1e-9);
}
