//! Charts.

use serde_json::json;

use super::super::builder::{Builder, file, read, tgz_of};
use super::{
    CHART, CHART_YAML, MEDIA_TYPE_CHART_CONFIG, PLUGIN, add_chart, chart, package, problem,
};
use crate::base::oci::MEDIA_TYPE_MANIFEST;
use crate::base::{ChartDescription, Description, PackageKind};

const VALUES: &str = "defaults: &defaults {support_arm: true}\nglobal:\n  registry: {address: registry.example}\n  images:\n    \
    web: {<<: *defaults, repository: ait/web, tag: v1.2.0}\n    api: {repository: ait/api, tag: 7}\n    \
    odd: {repository: ait/odd}\n    text: x\n";

#[test]
fn a_chart_describes_a_plugin_whose_manifest_says_little() {
    let archive = chart(&[
        ("Chart.yaml", CHART_YAML),
        ("values.yaml", VALUES),
        ("module-plugin.yaml", PLUGIN),
        ("scripts/plugin-config.yaml", ""),
        ("charts/sub/Chart.yaml", "name: sub\nversion: v9"),
    ]);
    let mut builder = Builder::default();
    let root = add_chart(&mut builder, &archive);
    let web = builder.image("web", "amd64");
    let spec = format!("artifact: '{CHART}', relatedImages: ['registry.example/ait/web:v1.2.0']");
    let images = [(CHART, &root), ("registry.example/ait/web:v1.2.0", &web)];
    let contents = read(&package(&builder, &spec, &images)).unwrap();
    assert_eq!(contents.description_problem, None);
    assert_eq!(
        contents.description,
        Some(Description::Chart(ChartDescription {
            name: "log-center".to_owned(),
            version: "v1.2.0".to_owned(),
            app_version: Some("3.10".to_owned()),
            description: Some("Keeps logs.".to_owned()),
            images: vec!["ait/api:7".to_owned(), "ait/web:v1.2.0".to_owned()],
            has_plugin_config: true,
        }))
    );
    assert_eq!(contents.kind, PackageKind::Plugin);
    assert_eq!(contents.name.as_ref().unwrap().as_str(), "log-center");
    assert_eq!(contents.version.as_deref(), Some("v1.2.0"));
    assert_eq!(contents.display_name.as_deref(), Some("Log Center"));
    assert_eq!(contents.resources.len(), 1);
    assert_eq!(contents.resources[0]["spec"]["mainChart"], "ait/log-center");
    assert_eq!(contents.list_missing_images(), ["ait/api:7"]);
}

#[test]
fn a_chart_by_itself_has_name_and_version_and_the_packages_own_plugin_wins() {
    let archive = chart(&[("Chart.yaml", CHART_YAML), ("module-plugin.yaml", "# none")]);
    let mut builder = Builder::default();
    let root = add_chart(&mut builder, &archive);
    let contents = read(&package(
        &builder,
        &format!("artifact: '{CHART}'"),
        &[(CHART, &root)],
    ))
    .unwrap();
    assert_eq!(contents.kind, PackageKind::Chart);
    assert_eq!(contents.version.as_deref(), Some("v1.2.0"));
    assert!(contents.resources.is_empty());

    let archive = chart(&[("Chart.yaml", CHART_YAML), ("module-plugin.yaml", PLUGIN)]);
    let mut builder = Builder::default();
    let root = add_chart(&mut builder, &archive);
    let manifest = format!("kind: PackageManifest\nspec: {{artifact: '{CHART}'}}");
    let mut files = vec![
        file("manifest.yaml", manifest),
        file(
            "moduleplugin.yaml",
            "kind: ModulePlugin\nmetadata: {name: own}",
        ),
    ];
    files.extend(builder.layout("", &[(Some(CHART), &root)]));
    let contents = read(&tgz_of(&files)).unwrap();
    assert_eq!(contents.kind, PackageKind::Plugin);
    assert_eq!(contents.resources.len(), 1);
    assert_eq!(contents.name.unwrap().as_str(), "own");
}

/// Packs a chart as the artifact of a package and asserts how far it is described.
fn assert_problem(name: &str, archive: &[u8], code: &str, is_described: bool) {
    let mut builder = Builder::default();
    let root = add_chart(&mut builder, archive);
    let bytes = package(&builder, &format!("artifact: '{CHART}'"), &[(CHART, &root)]);
    assert_eq!(problem(&bytes), code, "{name}");
    if code != "layer-corrupt" {
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.description.is_some(), is_described, "{name}");
        assert_eq!(contents.kind, PackageKind::Chart, "{name}");
    }
}

#[test]
fn charts_that_are_damaged_or_hostile_are_told_apart_and_their_images_are_kept() {
    let giant = format!("x: {}", "y".repeat(4 << 20));
    let with_giant = chart(&[("Chart.yaml", CHART_YAML), ("values.yaml", &giant)]);
    let at_root = tgz_of(&[file("Chart.yaml", CHART_YAML)]);
    let two = tgz_of(&[
        file("a/Chart.yaml", CHART_YAML),
        file("b/Chart.yaml", CHART_YAML),
    ]);
    for (name, archive, code) in [
        ("no-archive", b"x".to_vec(), "layer-corrupt"),
        (
            "no-chart-file",
            chart(&[("values.yaml", VALUES)]),
            "chart-file",
        ),
        ("chart-file-at-the-root", at_root, "chart-file"),
        ("two-charts", two, "chart-file"),
        (
            "no-version",
            chart(&[("Chart.yaml", "name: x")]),
            "file-invalid",
        ),
        ("giant-values", with_giant, "file-too-large"),
    ] {
        assert_problem(name, &archive, code, false);
    }
    let mut builder = Builder::default();
    let config = builder.json(MEDIA_TYPE_CHART_CONFIG, &json!({}));
    let manifest = json!({"config": config, "layers": []});
    let root = builder.json(MEDIA_TYPE_MANIFEST, &manifest);
    let bytes = package(&builder, &format!("artifact: '{CHART}'"), &[(CHART, &root)]);
    assert_eq!(problem(&bytes), "chart-layer-absent");
}

#[test]
fn what_is_wrong_beside_the_description_of_a_chart_leaves_it_described() {
    let ten = |level: usize| vec![format!("*l{level} "); 10].join(",");
    let levels: Vec<String> = (1..=9)
        .map(|level| format!("l{level}: &l{level} [{}]\n", ten(level - 1)))
        .collect();
    let laughs = format!("l0: &l0 [x]\n{}global: {{images: *l9 }}\n", levels.concat());
    for (case, name, text, code) in [
        ("laughs", "values.yaml", laughs.as_str(), "file-invalid"),
        (
            "values-of-another-shape",
            "values.yaml",
            "[]",
            "file-invalid",
        ),
        ("empty-values", "values.yaml", " \n", "none"),
        ("values-of-comments", "values.yaml", "# none\n", "none"),
        (
            "values-without-images",
            "values.yaml",
            "global: {images: [x]}",
            "none",
        ),
        (
            "no-kind",
            "module-plugin.yaml",
            "metadata: {}",
            "file-invalid",
        ),
        ("other-kind", "module-plugin.yaml", "kind: Pod", "none"),
    ] {
        let archive = chart(&[("Chart.yaml", CHART_YAML), (name, text)]);
        assert_problem(case, &archive, code, true);
    }
}
