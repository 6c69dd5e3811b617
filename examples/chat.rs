//! Answers lines from stdin: `cargo run --release -p candle-engine-examples --example chat -- MODEL`
//!
//! The session keeps its cache between turns: only what is new is computed.

use std::io::{BufRead, Write};

use candle_engine_models::{Error, LoadOptions, Message, Model, Result};

fn main() -> Result<()> {
    let Some(model) = std::env::args().nth(1) else {
        return Err(Error::Input("usage: chat MODEL".into()));
    };
    let model = Model::open(&model, &LoadOptions::default())?;
    let mut session = model.session();
    let mut messages = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
        messages.push(Message::new("user", line));
        let tokens = model.encode_chat(&messages)?;
        let known = session.reuse(&tokens);
        let mut answer = String::new();
        for piece in model.generate(&mut session, &tokens[known..], &model.options())? {
            let text = piece?.text;
            print!("{text}");
            let _ = std::io::stdout().flush();
            answer += &text;
        }
        println!();
        messages.push(Message::new("assistant", answer));
    }
    Ok(())
}
