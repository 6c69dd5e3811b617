//! Learns which points lie in a circle: `cargo run --release -p candle-engine-examples --example train_mlp`
//!
//! Defined, trained, saved, loaded and run; the rows of a file are read by `Table::open`.

use std::ops::ControlFlow;

use candle_engine_models::mlp::{Architecture, Data, Event, FitOptions, Hints, Mlp, Table};
use candle_engine_models::Result;

fn main() -> Result<()> {
    let mut csv = String::from("x,y,place\n");
    for i in 0..1600 {
        let (x, y) = ((i % 40) as f32 / 20.0 - 1.0, (i / 40) as f32 / 20.0 - 1.0);
        let place = if x * x + y * y < 0.5 { "inside" } else { "outside" };
        csv += &format!("{x},{y},{place}\n");
    }
    let table = Table::from_bytes(csv.as_bytes(), "circle")?;
    let data = Data::new(&table, &Hints::default(), 0.2, 1)?;

    let architecture = Architecture { hidden_sizes: vec![32, 32], ..Architecture::default() };
    let mut mlp = Mlp::new(data.schema.clone(), architecture, 1)?;
    let options = FitOptions { epochs: 40, lr: 0.005, ..FitOptions::default() };
    mlp.fit(&data, &options, &mut |event| {
        if let Event::Epoch(epoch) = event {
            println!("epoch {:2}: loss {:.4}, accuracy {:.3}", epoch.epoch, epoch.loss, epoch.score);
        }
        ControlFlow::Continue(())
    })?;

    let folder = std::env::temp_dir().join(format!("circle-{}", std::process::id()));
    mlp.save(&folder)?;
    let mlp = Mlp::load(&folder)?;
    let points = Table::from_bytes(b"x,y\n0.1,0.2\n0.9,0.9\n", "points")?;
    println!("{:?}", mlp.predict(&points)?);
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
