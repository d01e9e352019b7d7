//! The plain average of checkpoints, number by number.

use crate::checkpoint::open;
use crate::{Architecture, Error};
use remit_fault::fault;
use remit_store::tensors::{FileDtype, TensorDirectory, TensorOut, write_tensors};
use serde_json::Value;
use std::path::Path;

/// Keys of `config.json` that say nothing of the architecture.
const ASIDE: [&str; 6] =
    ["dtype", "torch_dtype", "transformers_version", "_name_or_path", "use_cache", "architectures"];
/// Numbers that are averaged at a time.
const CHUNK: usize = 1 << 16;

/// Writes into `directory`, which exists, the mean of `checkpoints` in `f32`, with the configuration of the first. Sums
/// are `f64` and in the order of the checkpoints. Takes the memory of one of them in `f32`.
///
/// # Errors
/// One that cannot be read, is of another architecture than the first or holds a number that is not finite; a refusal of
/// the operating system.
///
/// # Panics
/// Without checkpoints.
pub fn average(checkpoints: &[impl AsRef<Path>], directory: &Path) -> Result<(), Error> {
    let paths: Vec<&Path> = checkpoints.iter().map(AsRef::as_ref).collect();
    let (architecture, layout, first) = open(paths[0])?;
    let mut files = vec![first];
    for path in &paths[1..] {
        let (other, _, tensors) = open(path)?;
        check_equal(&architecture, paths[0], &other, path)?;
        files.push(tensors);
    }
    let mut means = vec![0.0; layout.len()];
    for entry in layout.entries() {
        mean_of(&files, &entry.name, &mut means[entry.range.clone()])?;
    }
    let tensors: Vec<TensorOut> = layout
        .entries()
        .iter()
        .map(|entry| TensorOut { name: &entry.name, shape: &entry.shape, data: &means[entry.range.clone()] })
        .collect();
    write_tensors(directory, "model", &tensors, FileDtype::F32, None)?;
    architecture.save(directory, FileDtype::F32)
}

/// Fills `means` with the mean of a tensor.
fn mean_of(files: &[TensorDirectory], name: &str, means: &mut [f32]) -> Result<(), Error> {
    let (mut part, mut sums) = (vec![0.0; CHUNK], vec![0.0f64; CHUNK]);
    for (number, means) in means.chunks_mut(CHUNK).enumerate() {
        let (part, sums) = (&mut part[..means.len()], &mut sums[..means.len()]);
        sums.fill(0.0);
        for tensors in files {
            tensors.read_f32_part(name, number * CHUNK, part)?;
            if part.iter().any(|value| !value.is_finite()) {
                let path = tensors.path().display();
                return Err(fault!("tensor `{name}` in `{path}` holds a number that is not finite"));
            }
            sums.iter_mut().zip(&*part).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let count = files.len() as f64;
        means.iter_mut().zip(&*sums).for_each(|(mean, sum)| *mean = (sum / count) as f32);
    }
    Ok(())
}

/// Whether two configurations are of one architecture.
fn check_equal(
    first: &Architecture,
    first_path: &Path,
    other: &Architecture,
    other_path: &Path,
) -> Result<(), Error> {
    let keys = first.source.keys().chain(other.source.keys());
    let differs =
        |key: &&String| !ASIDE.contains(&key.as_str()) && first.source.get(*key) != other.source.get(*key);
    let Some(key) = keys.into_iter().find(differs) else { return Ok(()) };
    let value = |architecture: &Architecture| {
        architecture.source.get(key).map_or("not set".to_owned(), Value::to_string)
    };
    let (a, b) = (value(first), value(other));
    Err(fault!(
        "`{key}` is {a} in `{}`, and {b} in `{}`",
        first_path.join("config.json").display(),
        other_path.join("config.json").display()
    )
    .with_hint(
        "an average is of checkpoints of one architecture: runs of one model with other seeds or data",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::llama::config::Settings;
    use crate::{Decoder, SaveOptions};
    use tempfile::TempDir;

    fn decoder(seed: u64, intermediate_size: usize) -> Decoder {
        let settings = Settings {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size,
            max_position_embeddings: 32,
            ..Default::default()
        };
        Decoder::fresh(settings.build(11, Some(3)).unwrap(), seed)
    }

    fn saved(decoder: &Decoder, dtype: FileDtype) -> TempDir {
        let home = tempfile::tempdir().unwrap();
        decoder.save(home.path(), SaveOptions { dtype, max_shard_bytes: None }).unwrap();
        home
    }

    fn mean(homes: &[&TempDir]) -> Result<Decoder, Error> {
        let out = tempfile::tempdir().unwrap();
        average(&homes.iter().map(|home| home.path()).collect::<Vec<_>>(), out.path())?;
        Decoder::open(out.path())
    }

    #[test]
    fn every_number_is_the_mean() {
        let models = [1, 2, 3].map(|seed| decoder(seed, 12));
        let homes = models.each_ref().map(|model| saved(model, FileDtype::F32));
        let found = mean(&[&homes[0], &homes[1], &homes[2]]).unwrap();
        let [a, b, c] = models.each_ref().map(|model| &model.parameters);
        for (index, &value) in found.parameters.iter().enumerate() {
            let sum = f64::from(a[index]) + f64::from(b[index]) + f64::from(c[index]);
            assert_eq!(value, (sum / 3.0) as f32, "{index}");
        }
        assert_ne!(found.parameters, models[0].parameters);
    }

    #[test]
    fn equal_checkpoints_have_themselves_as_average_whatever_their_type() {
        let model = decoder(1, 12);
        let exact = saved(&model, FileDtype::F32);
        assert_eq!(mean(&[&exact, &exact, &exact]).unwrap().parameters, model.parameters);
        let rounded = saved(&model, FileDtype::Bf16);
        let wanted = Decoder::open(rounded.path()).unwrap().parameters;
        assert_ne!(wanted, model.parameters);
        assert_eq!(mean(&[&rounded, &rounded]).unwrap().parameters, wanted);
        let half = mean(&[&exact, &rounded]).unwrap().parameters;
        let sum = f64::from(model.parameters[0]) + f64::from(wanted[0]);
        assert_eq!(half[0], (sum / 2.0) as f32);
    }

    #[test]
    fn another_architecture_is_named() {
        let homes = [12, 16].map(|size| saved(&decoder(1, size), FileDtype::F32));
        let error = mean(&[&homes[0], &homes[1]]).expect_err("two architectures").to_string();
        assert!(error.starts_with("`intermediate_size` is 12 in `"), "{error}");
        assert!(error.contains("config.json`, and 16 in `"), "{error}");
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        let mut model = decoder(1, 12);
        let good = saved(&model, FileDtype::F32);
        *model.parameters.last_mut().unwrap() = f32::NAN;
        let bad = saved(&model, FileDtype::F32);
        let error = mean(&[&good, &bad]).expect_err("a NaN").to_string();
        assert!(error.contains(&format!("in `{}` holds a number that is not finite", bad.path().display())));
    }
}
