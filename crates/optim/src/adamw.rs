//! AdamW (Decoupled Weight Decay Regularization, arXiv 1711.05101) in PyTorch's formulation.
//!
//! With gradient `g`, step `t` counted from 1 and learning rate `lr`:
//!
//! ```text
//! g <- g * gradient_scale                     the clip factor
//! p <- p * (1 - lr * weight_decay)            where the parameter decays
//! m <- beta1 m + (1 - beta1) g
//! v <- beta2 v + (1 - beta2) g^2
//! p <- p - lr * m_hat / (sqrt(v_hat) + epsilon)
//!      m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
//! ```
//!
//! One pass over the memory: each parameter, its gradient and its two moments are read once and written once.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::simd::simd_fn;
use crate::{CHUNK, Error, out_of_range};

/// Settings of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// The peak learning rate, which a schedule scales.
    pub learning_rate: f64,
    /// Decay rates of the first and second moment.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// Decay of the parameters a step, as a multiple of the learning rate.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
}

/// What is the same for every parameter of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Updates including this one since the moments were zero: 1 for the first.
    pub step: u64,
    /// The scheduled learning rate.
    pub learning_rate: f64,
    /// Multiplies every gradient: the clip factor, or 1.
    pub gradient_scale: f32,
}

/// A parameter and what belongs to it, flat and of one length.
#[derive(Debug)]
pub struct Slices<'a> {
    /// Changed in place.
    pub parameters: &'a mut [f32],
    /// Of the loss by the parameters; left as they are.
    pub gradients: &'a [f32],
    /// First moments, `m`; zero before the first step.
    pub first: &'a mut [f32],
    /// Second moments, `v`; zero before the first step.
    pub second: &'a mut [f32],
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn default_epsilon() -> f64 {
    1e-8
}

fn default_weight_decay() -> f64 {
    0.1
}

impl AdamW {
    /// The defaults, with a learning rate.
    pub fn new(learning_rate: f64) -> AdamW {
        AdamW {
            learning_rate,
            betas: default_betas(),
            epsilon: default_epsilon(),
            weight_decay: default_weight_decay(),
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn validate(&self) -> Result<(), Error> {
        let check = |good: bool, key, value, expected| {
            if good { Ok(()) } else { Err(out_of_range("optimizer", key, value, expected)) }
        };
        let rate = self.learning_rate;
        check(rate.is_finite() && rate > 0.0, "learning_rate", rate, "a finite number above 0")?;
        for beta in self.betas {
            check((0.0..1.0).contains(&beta), "betas", beta, "0 or more and below 1")?;
        }
        let (epsilon, decay) = (self.epsilon, self.weight_decay);
        check(epsilon.is_finite() && epsilon > 0.0, "epsilon", epsilon, "a finite number above 0")?;
        check(decay.is_finite() && decay >= 0.0, "weight_decay", decay, "a finite number, 0 or more")
    }

    /// One update of one parameter, in parallel over its elements. `decay` says whether weight decay applies to it.
    ///
    /// # Panics
    /// When the slices differ in length or the step is 0.
    pub fn step(&self, update: &Update, decay: bool, slices: Slices<'_>) {
        assert!(update.step > 0, "steps count from 1");
        let Slices { parameters, gradients, first, second } = slices;
        let size = parameters.len();
        assert_eq!(
            (gradients.len(), first.len(), second.len()),
            (size, size, size),
            "one of each a parameter"
        );
        let factors = self.factors(update, decay);
        parameters
            .par_chunks_mut(CHUNK)
            .zip(gradients.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK)))
            .for_each(|((parameters, gradients), (first, second))| {
                update_chunk(&factors, parameters, gradients, first, second);
            });
    }

    /// What is constant within a step, worked out in `f64`.
    fn factors(&self, update: &Update, decay: bool) -> Factors {
        let [beta1, beta2] = self.betas;
        let t = update.step as f64;
        let rate = update.learning_rate;
        Factors {
            gradient: update.gradient_scale,
            keep: if decay { (1.0 - rate * self.weight_decay) as f32 } else { 1.0 },
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            rate: (rate / (1.0 - beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

struct Factors {
    gradient: f32,
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    /// `lr / (1 - beta1^t)`: the first moment's bias correction drawn into the learning rate.
    rate: f32,
    /// `1 / sqrt(1 - beta2^t)`: the second moment's, drawn out of the root.
    root: f32,
    epsilon: f32,
}

simd_fn! {
    fn update_chunk(
        factors: &Factors,
        parameters: &mut [f32],
        gradients: &[f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let moments = first.iter_mut().zip(second);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(moments) {
            let gradient = gradient * factors.gradient;
            let m = factors.beta1 * *first + factors.rest1 * gradient;
            let v = factors.beta2 * *second + factors.rest2 * (gradient * gradient);
            *first = m;
            *second = v;
            *parameter = *parameter * factors.keep - factors.rate * (m / (v.sqrt() * factors.root + factors.epsilon));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A parameter with its moments.
    #[derive(Clone, Debug, PartialEq)]
    struct State {
        parameters: Vec<f32>,
        first: Vec<f32>,
        second: Vec<f32>,
    }

    impl State {
        fn new(parameters: Vec<f32>) -> State {
            State { first: vec![0.0; parameters.len()], second: vec![0.0; parameters.len()], parameters }
        }

        fn step(&mut self, settings: &AdamW, update: Update, decay: bool, gradients: &[f32]) {
            let State { parameters, first, second } = self;
            settings.step(&update, decay, Slices { parameters, gradients, first, second });
        }
    }

    fn update(step: u64, learning_rate: f64) -> Update {
        Update { step, learning_rate, gradient_scale: 1.0 }
    }

    /// By hand, with betas 1/2 and 3/4, learning rate 1/4, decay 1/2, gradients 2 then -1, from p = 1:
    ///
    /// ```text
    /// t = 1: p = 1 * 7/8; m = 1, v = 1; m_hat = 1 / (1/2) = 2, v_hat = 1 / (1/4) = 4; p = 7/8 - 1/4 * 2/2 = 5/8
    /// t = 2: p = 5/8 * 7/8 = 35/64; m = 1/2 - 1/2 = 0, v = 3/4 + 1/4 = 1; m_hat = 0; p = 35/64
    /// t = 3, gradient 1: m = 1/2, v = 1; m_hat = (1/2) / (7/8) = 4/7, v_hat = 1 / (1 - 27/64) = 64/37;
    ///        p = 35/64 * 7/8 - 1/4 * (4/7) / sqrt(64/37)
    /// ```
    #[test]
    fn three_steps_by_hand() {
        let settings = AdamW { betas: [0.5, 0.75], epsilon: 1e-12, weight_decay: 0.5, ..AdamW::new(0.25) };
        let mut state = State::new(vec![1.0]);
        state.step(&settings, update(1, 0.25), true, &[2.0]);
        assert_eq!(state, State { parameters: vec![0.625], first: vec![1.0], second: vec![1.0] });
        state.step(&settings, update(2, 0.25), true, &[-1.0]);
        assert_eq!(state, State { parameters: vec![35.0 / 64.0], first: vec![0.0], second: vec![1.0] });
        state.step(&settings, update(3, 0.25), true, &[1.0]);
        let expected = 35.0 / 64.0 * 7.0 / 8.0 - 0.25 * (4.0 / 7.0) / (64.0f64 / 37.0).sqrt();
        assert!((f64::from(state.parameters[0]) - expected).abs() < 1e-7, "{state:?}");
    }

    /// The formula at the top of this file, word for word, in `f64`.
    fn reference(
        settings: &AdamW,
        update: &Update,
        decay: bool,
        p: &mut f64,
        g: f32,
        m: &mut f64,
        v: &mut f64,
    ) {
        let g = f64::from(g) * f64::from(update.gradient_scale);
        let [beta1, beta2] = settings.betas;
        if decay {
            *p *= 1.0 - update.learning_rate * settings.weight_decay;
        }
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        let m_hat = *m / (1.0 - beta1.powi(update.step as i32));
        let v_hat = *v / (1.0 - beta2.powi(update.step as i32));
        *p -= update.learning_rate * m_hat / (v_hat.sqrt() + settings.epsilon);
    }

    proptest! {
        #[test]
        fn follows_the_formula(
            gradients in prop::collection::vec(prop::collection::vec(-1.0f32..1.0, 19), 8),
            small in any::<bool>(),
            decay in any::<bool>(),
            gradient_scale in 0.01f32..1.0,
        ) {
            let settings = AdamW { weight_decay: 3.0, ..AdamW::new(1e-2) };
            // Gradients of epsilon's size would show an epsilon inside the root.
            let size = if small { 1e-7 } else { 1.0 };
            let mut state = State::new((0..19).map(|i| i as f32 / 10.0 - 1.0).collect());
            let mut expected: Vec<[f64; 3]> = state.parameters.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
            for (step, gradients) in (1..).zip(gradients) {
                let gradients: Vec<f32> = gradients.iter().map(|gradient| gradient * size).collect();
                let update = Update { step, learning_rate: 1e-2 / step as f64, gradient_scale };
                state.step(&settings, update, decay, &gradients);
                for ([p, m, v], &gradient) in expected.iter_mut().zip(&gradients) {
                    reference(&settings, &update, decay, p, gradient, m, v);
                }
            }
            for (i, [p, m, v]) in expected.into_iter().enumerate() {
                prop_assert!((f64::from(state.parameters[i]) - p).abs() < 1e-6, "{} {}", state.parameters[i], p);
                prop_assert!((f64::from(state.first[i]) - m).abs() < 1e-6 * f64::from(size));
                prop_assert!((f64::from(state.second[i]) - v).abs() < 1e-6 * f64::from(size * size));
            }
        }
    }

    /// With one gradient for ever both moments are unbiased from the start: each step moves by the learning rate.
    #[test]
    fn a_constant_gradient_moves_by_the_learning_rate() {
        let settings = AdamW { weight_decay: 0.0, ..AdamW::new(0.125) };
        let mut state = State::new(vec![0.0; 3]);
        for step in 1..=40 {
            state.step(&settings, update(step, 0.125), true, &[3.0, -0.001, 0.0]);
        }
        for (found, expected) in state.parameters.iter().zip([-5.0, 5.0, 0.0]) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn only_parameters_that_decay_decay() {
        let settings = AdamW { weight_decay: 0.5, ..AdamW::new(0.5) };
        let (mut decaying, mut other) = (State::new(vec![2.0]), State::new(vec![2.0]));
        decaying.step(&settings, update(1, 0.5), true, &[0.0]);
        other.step(&settings, update(1, 0.5), false, &[0.0]);
        assert_eq!((decaying.parameters[0], other.parameters[0]), (1.5, 2.0));
    }

    #[test]
    fn scaling_the_gradient_is_a_smaller_gradient() {
        let settings = AdamW::new(0.1);
        let (mut scaled, mut small) = (State::new(vec![1.0; 2]), State::new(vec![1.0; 2]));
        scaled.step(&settings, Update { gradient_scale: 0.25, ..update(1, 0.1) }, true, &[4.0, -8.0]);
        small.step(&settings, update(1, 0.1), true, &[1.0, -2.0]);
        assert_eq!(scaled, small);
    }

    /// Several chunks and an odd remainder: on one thread, on three, and one element at a time in plain code.
    #[test]
    fn threads_and_vector_width_change_no_bit() {
        let size = 2 * CHUNK + 37;
        let numbers = |seed: u32| -> Vec<f32> {
            let mix = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32;
            (0..size as u32).map(|i| mix(i) / 8_388_608.0 - 1.0).collect()
        };
        let start = State {
            parameters: numbers(1),
            first: numbers(2),
            second: numbers(3).iter().map(|v| v * v).collect(),
        };
        let gradients = numbers(4);
        let settings = AdamW::new(3e-4);
        let update = Update { step: 7, learning_rate: 3e-4, gradient_scale: 0.7 };
        let on_threads = |num_threads| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().expect("threads start");
            let mut state = start.clone();
            pool.install(|| state.step(&settings, update, true, &gradients));
            state
        };
        let mut plain = start.clone();
        let f = settings.factors(&update, true);
        for i in 0..size {
            let g = gradients[i] * f.gradient;
            let m = f.beta1 * start.first[i] + f.rest1 * g;
            let v = f.beta2 * start.second[i] + f.rest2 * (g * g);
            (plain.first[i], plain.second[i]) = (m, v);
            plain.parameters[i] =
                start.parameters[i] * f.keep - f.rate * (m / (v.sqrt() * f.root + f.epsilon));
        }
        assert!(on_threads(1) == plain, "vector code differs from plain code");
        assert!(on_threads(3) == plain, "three threads differ from one");
    }

    #[test]
    fn settings_are_read_with_defaults() {
        let settings: AdamW = toml::from_str("learning_rate = 3e-4").expect("the rest has defaults");
        assert_eq!(settings, AdamW::new(3e-4));
        assert_eq!((settings.betas, settings.epsilon, settings.weight_decay), ([0.9, 0.95], 1e-8, 0.1));
        let error = |text| toml::from_str::<AdamW>(text).expect_err("a mistake").message().to_string();
        assert_eq!(error("betas = [0.9, 0.95]"), "missing field `learning_rate`");
        assert_eq!(
            error("learning_rate = 1e-3\nlr = 1.0"),
            "unknown field `lr`, expected one of `learning_rate`, `betas`, `epsilon`, `weight_decay`"
        );
    }

    #[test]
    fn numbers_outside_their_range() {
        let check = |settings: AdamW, message: &str| {
            assert_eq!(settings.validate().expect_err("out of range").to_string(), message);
        };
        let good = AdamW::new(1e-3);
        assert_eq!(good.validate(), Ok(()));
        check(AdamW::new(0.0), "optimizer setting `learning_rate` is 0, but must be a finite number above 0");
        check(
            AdamW { betas: [0.9, 1.0], ..good.clone() },
            "optimizer setting `betas` is 1, but must be 0 or more and below 1",
        );
        check(
            AdamW { epsilon: -1.0, ..good.clone() },
            "optimizer setting `epsilon` is -1, but must be a finite number above 0",
        );
        check(
            AdamW { weight_decay: f64::NAN, ..good },
            "optimizer setting `weight_decay` is NaN, but must be a finite number, 0 or more",
        );
    }
}
