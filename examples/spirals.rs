//! Tells two spirals apart and draws where one ends and the other begins:
//! `cargo run --release -p candle-engine-examples --example spirals -- [spirals.svg]`

use std::ops::ControlFlow;

use candle_engine_models::mlp::{Act, Architecture, Data, FitOptions, Hints, Mlp, Prediction, Table};
use candle_engine_models::{Error, Result};

/// Pixels of the picture, and what it shows: −1 to 1.
const SIZE: usize = 120;
const POINTS: usize = 500;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "spirals.svg".into());
    let point = |i: usize| {
        let (along, arm) = ((i / 2) as f32 / (POINTS / 2) as f32, i % 2);
        let (radius, turn) = (0.1 + 0.85 * along, (3.0 * along + arm as f32) * std::f32::consts::PI);
        (radius * turn.cos(), radius * turn.sin(), ["blue", "orange"][arm])
    };
    let rows: String = (0..POINTS).map(point).map(|(x, y, arm)| format!("{x},{y},{arm}\n")).collect();
    let table = Table::from_bytes(format!("x,y,arm\n{rows}").as_bytes(), "spirals")?;
    let data = Data::new(&table, &Hints::default(), 0.2, 1)?;

    let architecture =
        Architecture { hidden_sizes: vec![32, 32], hidden_act: Act::Tanh, ..Architecture::default() };
    let mut mlp = Mlp::new(data.schema.clone(), architecture, 1)?;
    let options = FitOptions { epochs: 400, lr: 0.01, patience: Some(100), ..FitOptions::default() };
    mlp.fit(&data, &options, &mut |_| ControlFlow::Continue(()))?;
    println!("accuracy on the points that it has not seen: {:.3}", mlp.validate(&data)?.score());

    let at = |i: usize| (2 * i + 1) as f32 / SIZE as f32 - 1.0;
    let pixels: String = (0..SIZE * SIZE).map(|i| format!("{},{}\n", at(i % SIZE), at(i / SIZE))).collect();
    let pixels = mlp.predict(&Table::from_bytes(format!("x,y\n{pixels}").as_bytes(), "pixels")?)?;
    let mut svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {SIZE}\">\n");
    for (i, pixel) in pixels.iter().enumerate() {
        let Prediction::Label(_, probabilities) = pixel else { continue };
        let (red, blue) = (70.0 + 185.0 * probabilities[1], 70.0 + 185.0 * probabilities[0]);
        let (x, y) = (i % SIZE, i / SIZE);
        svg += &format!("<path d=\"M{x} {y}h1v1h-1\" fill=\"rgb({red:.0},170,{blue:.0})\"/>\n");
    }
    for (x, y, arm) in (0..POINTS).map(point) {
        let [x, y] = [x, y].map(|x| (x + 1.0) / 2.0 * SIZE as f32);
        svg += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"0.8\" fill=\"{arm}\" stroke=\"black\" stroke-width=\"0.2\"/>\n");
    }
    std::fs::write(&path, svg + "</svg>\n").map_err(|e| Error::io(&path, e))?;
    println!("{path}");
    Ok(())
}
