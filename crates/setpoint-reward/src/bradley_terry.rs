//! The Bradley–Terry loss of a reward model.

use burn::tensor::Tensor;
use setpoint_align::log_sigmoid;

/// The loss of each pair and its two parts.
///
/// # Shapes
/// Every field is `[n]`, one entry per pair.
#[derive(Debug, Clone)]
pub struct BradleyTerry {
    /// `preference + centering`.
    pub losses: Tensor<1>,
    /// `−log σ(r_w − r_l − margin)`: the negative log-likelihood that the chosen response wins.
    pub preference: Tensor<1>,
    /// `c·(r_w + r_l)²`: holds the offset that the preference leaves free.
    pub centering: Tensor<1>,
}

/// Bradley–Terry loss of preference pairs, unreduced:
/// `−log σ(r_w − r_l − margin) + c·(r_w + r_l)²`
/// (Bradley and Terry 1952; margins as in Touvron et al. 2023, "Llama 2", eq. 2; centring as in Eisenstein et al. 2023,
/// "Helping or Herding?", and trl's `center_rewards_coefficient`).
///
/// Only the difference `r_w − r_l` is decided by the preference, so rewards of different prompts are comparable only as far as
/// something else fixes the level: a small `center` (0.01 is usual) pulls each pair's mean towards 0.
///
/// # Shapes
/// `chosen`, `rejected` and `margin`: `[n]`.
///
/// # Units
/// Rewards are log-odds: a difference of `ln 3` means that the better response wins three times out of four.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Tensor};
/// use setpoint_reward::bradley_terry;
///
/// # #[allow(deprecated)]
/// let device = Device::flex();
/// let chosen = Tensor::<1>::from_floats([3.0_f32.ln(), 1.0], &device);
/// let rejected = Tensor::<1>::from_floats([0.0, 1.0], &device);
/// let loss = bradley_terry(chosen, rejected, None, 0.0);
/// let losses: Vec<f32> = loss.losses.into_data().try_to_vec().unwrap();
/// assert!((losses[0] - (4.0_f32 / 3.0).ln()).abs() < 1e-6); // −ln(3/4)
/// assert!((losses[1] - 2.0_f32.ln()).abs() < 1e-6); // a tie is a coin flip
/// ```
pub fn bradley_terry(chosen: Tensor<1>, rejected: Tensor<1>, margin: Option<Tensor<1>>, center: f64) -> BradleyTerry {
    let difference = chosen.clone() - rejected.clone();
    let lead = match margin {
        Some(margin) => difference - margin,
        None => difference,
    };
    let preference = log_sigmoid(lead).neg();
    let sum = chosen + rejected;
    let centering = (sum.clone() * sum).mul_scalar(center);
    BradleyTerry { losses: preference.clone() + centering.clone(), preference, centering }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    const CHOSEN: [f32; 7] = [0.0, 2.0, -1.5, 0.3, 90.0, -90.0, 4.0];
    const REJECTED: [f32; 7] = [0.0, -1.0, 1.0, 0.3, -90.0, 90.0, 4.5];
    const MARGIN: [f32; 7] = [0.0, 0.5, 1.0, -2.0, 0.0, 0.0, 0.25];
    const CENTER: f64 = 0.03;

    #[allow(deprecated)]
    fn devices() -> [Device; 2] {
        [Device::flex(), Device::ndarray()]
    }

    /// The loss of one pair in f64, by another form: −log σ(x) = log(1 + e^{−x}).
    fn expected(chosen: f64, rejected: f64, margin: f64, center: f64) -> f64 {
        let x = chosen - rejected - margin;
        let preference = if x < -30.0 { -x } else { (-x).exp().ln_1p() };
        preference + center * (chosen + rejected).powi(2)
    }

    fn column(i: usize) -> (f64, f64, f64) {
        (f64::from(CHOSEN[i]), f64::from(REJECTED[i]), f64::from(MARGIN[i]))
    }

    #[test]
    fn losses_have_the_closed_form_on_every_backend() {
        for device in devices() {
            let tensor = |values: &[f32; 7]| Tensor::<1>::from_floats(*values, &device);
            let got = bradley_terry(tensor(&CHOSEN), tensor(&REJECTED), Some(tensor(&MARGIN)), CENTER);
            let losses: Vec<f32> = got.losses.into_data().try_to_vec().unwrap();
            let parts: Vec<f32> = (got.preference + got.centering).into_data().try_to_vec().unwrap();
            assert_eq!(losses, parts);
            for (i, loss) in losses.iter().enumerate() {
                let (w, l, m) = column(i);
                let expected = expected(w, l, m, CENTER);
                assert!((f64::from(*loss) - expected).abs() <= 4e-7 * expected.max(1.0), "{i}: {loss} {expected}");
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences_and_stay_finite_on_every_backend() {
        for device in devices() {
            let device = device.autodiff();
            let tensor = |values: &[f32; 7]| Tensor::<1>::from_floats(*values, &device);
            let (chosen, rejected) = (tensor(&CHOSEN).require_grad(), tensor(&REJECTED).require_grad());
            let loss = bradley_terry(chosen.clone(), rejected.clone(), Some(tensor(&MARGIN)), CENTER).losses.sum();
            let gradients = loss.backward();
            let of = |t: &Tensor<1>| t.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap();
            let (by_chosen, by_rejected) = (of(&chosen), of(&rejected));
            for i in 0..CHOSEN.len() {
                let (w, l, m) = column(i);
                // Central differences in f64, of an error in the order of 1e-10.
                let h = 1e-5;
                let slope = |f: &dyn Fn(f64) -> f64| (f(h) - f(-h)) / (2.0 * h);
                let for_chosen = slope(&|d| expected(w + d, l, m, CENTER));
                let for_rejected = slope(&|d| expected(w, l + d, m, CENTER));
                for (got, wanted) in [(by_chosen[i], for_chosen), (by_rejected[i], for_rejected)] {
                    assert!((f64::from(got) - wanted).abs() < 1e-6 * wanted.abs().max(1.0), "{i}: {got} {wanted}");
                }
            }
            // Where both rewards are 0 the slope is exactly one half.
            assert_eq!((by_chosen[0], by_rejected[0]), (-0.5, 0.5));
        }
    }

    #[test]
    fn without_margin_and_centre_a_common_offset_changes_nothing() {
        for device in devices() {
            let tensor = |values: [f32; 3]| Tensor::<1>::from_floats(values, &device);
            let losses = |offset: f32| {
                let (w, l) = (tensor([1.0, 0.0, -2.0]) + offset, tensor([0.5, 1.0, -4.0]) + offset);
                bradley_terry(w, l, None, 0.0).losses.into_data().try_to_vec::<f32>().unwrap()
            };
            // Powers of two keep the differences exact.
            assert_eq!(losses(0.0), losses(64.0));
        }
    }
}
