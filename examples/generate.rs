//! Completes a text: `cargo run --release -p candle-engine-examples --example generate -- [MODEL] [PROMPT]`

use std::io::Write;

use candle_engine_models::{GenerateOptions, LoadOptions, Model, Result, SamplerOptions};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let model = args.next().unwrap_or_else(|| "builtin".into());
    let prompt = args.next().unwrap_or_else(|| "Once upon a time".into());

    let model = Model::open(&model, &LoadOptions::default())?;
    let mut session = model.session();
    let options = GenerateOptions {
        max_tokens: Some(200),
        sampler: SamplerOptions { seed: 7, ..SamplerOptions::default() },
        ..model.options()
    };
    print!("{prompt}");
    let mut generation = model.generate(&mut session, &model.encode(&prompt)?, &options)?;
    for piece in &mut generation {
        print!("{}", piece?.text);
        let _ = std::io::stdout().flush();
    }
    let stats = generation.stats();
    println!("\n\n{} tokens, {:.0} tokens/s", stats.generated, stats.decode_rate());
    Ok(())
}
