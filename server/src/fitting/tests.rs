//! Fits against singular value decompositions of the same activations, which are computed in another way.

use faer::Mat;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use safetensors::SafeTensors;

use super::*;

/// Memory for anything that is decomposed here.
const PLENTY: usize = 1 << 30;

/// Images of random activations.
fn random(images: usize, features: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = StdRng::seed_from_u64(seed);
    // Features of different scales, far from zero, so that the mean and the order of components matter.
    let image = |_| {
        (0..features)
            .map(|feature| 5.0 + random.random_range(-1.0..1.0_f32) / (1.0 + feature as f32))
            .collect()
    };
    (0..images).map(image).collect()
}

fn fitter(memory: usize, disk: u64) -> Fitter {
    let options = FittingOptions {
        keep: false,
        memory,
        disk,
        folder: None,
    };
    Fitter::new(options, 2).unwrap()
}

/// What came out of a fit.
struct Found {
    fitted: Fitted,
    /// One a row.
    components: Vec<Vec<f64>>,
    mean: Vec<f64>,
}

fn bytes(image: &[f32]) -> Vec<u8> {
    image.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn begin(fitter: &Fitter, features: usize, components: usize) -> Fit {
    let request = FitRequest {
        layers: vec![("layer1".into(), features)],
        components,
        seed: 7,
        checkpoint_digest: "digest".into(),
    };
    fitter.begin(request).unwrap()
}

fn try_fit(fitter: &Fitter, images: &[Vec<f32>], components: usize) -> Result<Found, FitError> {
    let mut fit = begin(fitter, images[0].len(), components);
    // In pieces of one, two, three, … images.
    let mut rest = images;
    let mut length = 1;
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(length.min(rest.len()));
        let piece = bytes(&piece.concat());
        fit.append([[piece.as_slice()]])?;
        (rest, length) = (others, length + 1);
    }
    assert_eq!(fit.images(), images.len());
    let fitted = fit.finish(&mut |_| Ok(()))?.remove(0);
    let file = SafeTensors::deserialize(&fitted.file).unwrap();
    let values = |name| -> Vec<f64> {
        let (values, _) = file.tensor(name).unwrap().data().as_chunks();
        values
            .iter()
            .map(|&value| f64::from(f32::from_le_bytes(value)))
            .collect()
    };
    let components = values("components")
        .chunks(images[0].len())
        .map(<[f64]>::to_vec)
        .collect();
    let mean = values("mean");
    drop(file);
    Ok(Found {
        fitted,
        components,
        mean,
    })
}

fn fit(memory: usize, images: &[Vec<f32>], components: usize) -> Found {
    try_fit(&fitter(memory, u64::MAX), images, components).unwrap()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    std::iter::zip(left, right)
        .map(|(left, right)| left * right)
        .sum()
}

/// `[images, features]`, less the features' means.
fn centred(images: &[Vec<f32>]) -> Mat<f64> {
    let (count, features) = (images.len(), images[0].len());
    let mean = |feature| images.iter().map(|image| f64::from(image[feature])).sum::<f64>() / count as f64;
    Mat::from_fn(count, features, |image, feature| {
        f64::from(images[image][feature]) - mean(feature)
    })
}

/// Compares a fit with the singular value decomposition of the same.
fn assert_is_svd(found: &Found, images: &[Vec<f32>], count: usize, tolerance: f64) {
    let svd = centred(images).thin_svd().unwrap();
    let degrees = (images.len() - 1) as f64;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    assert_eq!(found.components.len(), count);
    assert_eq!(found.fitted.explained_variance.len(), count);
    let total = values.iter().map(|value| value * value).sum::<f64>() / degrees;
    assert!((found.fitted.total_variance / total - 1.0).abs() < 1e-9);
    for (index, component) in found.components.iter().enumerate() {
        let variance = values[index] * values[index] / degrees;
        let difference = found.fitted.explained_variance[index] / variance - 1.0;
        assert!(
            difference.abs() < tolerance,
            "component {index}: variance off by {difference}"
        );
        let mut direction: Vec<f64> = svd.V().col(index).iter().copied().collect();
        let furthest = direction.iter().copied().fold(0.0, |furthest: f64, value| {
            if value.abs() > furthest.abs() {
                value
            } else {
                furthest
            }
        });
        direction.iter_mut().for_each(|value| *value *= furthest.signum());
        let cosine = dot(component, &direction);
        assert!(
            (cosine - 1.0).abs() < tolerance,
            "component {index}: cosine {cosine}"
        );
    }
    for (feature, &mean) in found.mean.iter().enumerate() {
        let expected =
            images.iter().map(|image| f64::from(image[feature])).sum::<f64>() / images.len() as f64;
        assert!((mean - expected).abs() <= 1e-6 * expected.abs().max(1.0));
    }
}

#[test]
fn components_are_those_of_a_singular_value_decomposition() {
    // Fewer images than features, and more.
    for (images, features) in [(12, 50), (50, 12), (20, 20)] {
        let images = random(images, features, 1);
        let found = fit(PLENTY, &images, 8);
        assert!(found.fitted.exact);
        assert_is_svd(&found, &images, 8, 1e-6);
    }
}

#[test]
fn components_are_the_same_in_blocks() {
    let images = random(40, 300, 2);
    // As little as 40 images' eigenvalues take, and the means.
    let memory = 5 * 8 * 40 * 40 + 8 * 300;
    let plan = plan::Plan::new(40, 300, 10, memory - 8 * 300).unwrap();
    assert_eq!(plan.method, plan::Method::Images);
    assert!(plan.block < 150);
    assert_is_svd(&fit(memory, &images, 10), &images, 10, 1e-6);
}

#[test]
fn many_images_are_decomposed_in_a_random_subspace() {
    let images = random(200, 300, 3);
    let memory = 300_000;
    let found = fit(memory, &images, 6);
    assert!(!found.fitted.exact);
    assert_is_svd(&found, &images, 6, 1e-3);
    let again = fit(memory, &images, 6);
    assert_eq!(
        *again.fitted.file, *found.fitted.file,
        "the same seed, other components"
    );
}

#[test]
fn there_are_no_more_components_than_variance() {
    // Five images span four dimensions, once their mean is taken off.
    let images = random(5, 30, 4);
    assert_is_svd(&fit(PLENTY, &images, 1000), &images, 4, 1e-6);
    // Duplicates add none.
    let twice = [images.clone(), images.clone()].concat();
    assert_is_svd(&fit(PLENTY, &twice, 1000), &twice, 4, 1e-6);
    // Neither do features that never change, with more images than features.
    let mut constant = random(30, 6, 5);
    for image in &mut constant {
        image[1] = 3.0;
        image[4] = -1e9;
    }
    let found = fit(PLENTY, &constant, 1000);
    assert_is_svd(&found, &constant, 4, 1e-6);
    assert!(
        found
            .components
            .iter()
            .all(|component| component[4].abs() < 1e-12)
    );
}

#[test]
fn images_that_are_all_the_same_give_a_projection_to_zero() {
    for features in [1, 40] {
        let images = vec![vec![2.5; features]; 7];
        let found = fit(PLENTY, &images, 10);
        assert_eq!(found.components, vec![vec![0.0; features]]);
        assert_eq!(found.mean, vec![2.5; features]);
        assert_eq!(found.fitted.explained_variance, [0.0]);
        assert_eq!(found.fitted.total_variance, 0.0);
    }
}

#[test]
fn large_activations_do_not_overflow() {
    let mut images = random(10, 20, 6);
    for value in images.iter_mut().flatten() {
        *value *= 1e37;
    }
    assert_is_svd(&fit(PLENTY, &images, 5), &images, 5, 1e-6);
}

#[test]
fn activations_that_are_no_numbers_are_refused() {
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut images = random(10, 20, 7);
        images[4][19] = wrong;
        let error = try_fit(&fitter(PLENTY, u64::MAX), &images, 5).err().unwrap();
        assert_eq!(
            error.to_string(),
            "layer `layer1`: an activation of image 4 (counted from 0) is not a finite number"
        );
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let images = random(10, 1000, 8);
    let error = try_fit(&fitter(8500, u64::MAX), &images, 5).err().unwrap();
    assert!(matches!(error, FitError::Memory { limit: 8500, .. }), "{error}");
    let fitter = fitter(PLENTY, 50_000);
    let error = try_fit(&fitter, &images, 5).err().unwrap();
    assert!(matches!(error, FitError::Disk { limit: 50_000 }), "{error}");
    assert_eq!(fitter.disk_used(), 0);
    let error = try_fit(&fitter, &images[..1], 5).err().unwrap();
    assert!(matches!(error, FitError::TooFewImages { found: 1 }), "{error}");
    // A projection counts until it is dropped.
    let found = try_fit(&fitter, &images[..3], 5).unwrap();
    assert!(
        (8000..20_000).contains(&fitter.disk_used()),
        "{}",
        fitter.disk_used()
    );
    drop(found);
    assert_eq!(fitter.disk_used(), 0);
}

#[test]
fn a_fit_that_is_cancelled_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = FittingOptions {
        keep: false,
        folder: Some(folder.path().into()),
        ..FittingOptions::default()
    };
    let fitter = Fitter::new(options, 2).unwrap();
    let images = bytes(&random(6, 30, 9).concat());
    let mut steps = 0;
    // At every step in turn, until there is none left to be cancelled at.
    for last in 0.. {
        let mut fit = begin(&fitter, 30, 5);
        fit.append([[images.as_slice()]]).unwrap();
        let mut step = 0;
        let result = fit.finish(&mut |_| {
            step += 1;
            if step > last {
                Err(FitError::Cancelled)
            } else {
                Ok(())
            }
        });
        if result.is_ok() {
            steps = last;
            break;
        }
        assert!(matches!(result, Err(FitError::Cancelled)));
        assert_eq!(fitter.disk_used(), 0);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
    assert!(steps >= 2, "{steps} steps");
    assert_eq!(fitter.disk_used(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let options = FittingOptions {
        keep: false,
        folder: Some("/nowhere/at/all".into()),
        ..FittingOptions::default()
    };
    let error = Fitter::new(options, 2).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/nowhere/at/all; the option `fitting.folder`"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn components_are_orthonormal_and_explain_what_they_say(
        count in 2_usize..24,
        features in 1_usize..40,
        wanted in 1_usize..30,
        copies in 1_usize..3,
        spare in 0_usize..3000,
        seed in any::<u64>(),
    ) {
        let images = vec![random(count, features, seed); copies].concat();
        // From what is just enough to more than enough for one block.
        let side = images.len().min(features);
        let memory = 8 * features + 8 * side * side + (32 * side * side).max(8 * (images.len() + features)) + spare;
        let found = fit(memory, &images, wanted);
        let variances = &found.fitted.explained_variance;
        prop_assert_eq!(found.components.len(), variances.len());
        prop_assert!((1..=wanted.min(side)).contains(&variances.len()));
        prop_assert!(variances.is_sorted_by(|first, second| first >= second));
        prop_assert!(variances.iter().sum::<f64>() <= found.fitted.total_variance * (1.0 + 1e-9));
        let centred = centred(&images);
        for (index, component) in found.components.iter().enumerate() {
            for (other_index, other) in found.components.iter().enumerate() {
                let expected = f64::from(u8::from(index == other_index));
                prop_assert!((dot(component, other) - expected).abs() < 1e-4);
            }
            let projected = centred.row_iter().map(|image| {
                std::iter::zip(image.iter(), component).map(|(value, weight)| value * weight).sum::<f64>()
            });
            let variance = projected.map(|value| value * value).sum::<f64>() / (images.len() - 1) as f64;
            prop_assert!((variance - variances[index]).abs() < 1e-5 * variances[0]);
            let furthest = component.iter().copied().fold(0.0, |furthest: f64, value| {
                if value.abs() > furthest.abs() { value } else { furthest }
            });
            prop_assert!(furthest > 0.0);
        }
    }
}
