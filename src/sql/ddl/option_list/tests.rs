//! Option lists: spellings, ranges, errors.

use super::*;

const KEYS: &[Key] = &[
    Key::Metric,
    Key::M,
    Key::EfSearch,
    Key::Seed,
    Key::Name,
    Key::IfExists,
];

fn parse(text: &str) -> Result<OptionList> {
    OptionList::parse(text, "f", KEYS)
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).strip_backtrace()
}

#[test]
fn options_are_read_in_any_order_case_and_spacing() {
    let expected = OptionList {
        metric: Some(VectorMetric::Euclidean),
        m: Some(16),
        seed: Some(u64::MAX),
        name: Some("a, \"b\" 'c'=".to_string()),
        if_exists: Some(true),
        ..OptionList::default()
    };
    for text in [
        r#"metric=l2, m=16, seed=18446744073709551615, name="a, ""b"" 'c'=", if_exists=true"#,
        r#"  M = 16,if_exists=TRUE ,NAME='a, "b" ''c''=' , Metric = Euclidean,seed=18446744073709551615,"#,
    ] {
        assert_eq!(parse(text).expect(text), expected);
    }
    assert_eq!(
        parse(&expected.to_text()).expect("its own text is read"),
        expected
    );
    assert_eq!(parse("  ").expect("no options are fine"), OptionList::default());
    assert_eq!(
        parse("name=ünï, m=2").expect("any letters").name.as_deref(),
        Some("ünï")
    );
}

#[test]
fn errors_name_the_keys_and_ranges() {
    assert_eq!(
        error("mm=3"),
        "Error during planning: f: there is no option 'mm'; the options are \
         metric (cosine or l2 or ip), m (a whole number from 2 to 128), \
         ef_search (a whole number from 1 to 4294967295), seed (a whole number), name (a name), \
         if_exists (true or false)"
    );
    for (text, part) in [
        ("m=0", "m = 0 is out of range; m is a whole number from 2 to 128"),
        ("m=-1", "m = -1 is out of range"),
        ("m=1e3", "m = 1e3 is out of range"),
        ("m=", "m =  is out of range"),
        (
            "ef_search=99999999999999999999999",
            "is out of range; ef_search is a whole number from 1 to",
        ),
        (
            "metric=foo",
            "there is no metric 'foo'; metric is cosine or l2 or ip",
        ),
        (
            "metric=Normalized_Cosine",
            "no SQL function orders by metric 'normalized_cosine'; use metric = 'cosine', whose neighbors are the same",
        ),
        ("m=16, m=17", "option m is given twice"),
        ("cosine", "expected key=value, found 'cosine'"),
        ("m=16 ef_search=3", "m = 16 ef_search=3 is out of range"),
        ("m=16,, seed=1", "expected key=value, found ''"),
        ("name='open", "expected key=value, found 'name='open'"),
        ("name='a' b, m=2", "expected key=value, found 'name='a' b'"),
        ("=3", "expected key=value, found '=3'"),
        ("name=", "name is empty"),
        ("if_exists=maybe", "if_exists is true or false, not 'maybe'"),
        ("if_not_exists=true", "there is no option 'if_not_exists'"),
    ] {
        assert!(error(text).contains(part), "{text}: {}", error(text));
    }
}

#[test]
fn a_metric_goes_by_all_of_its_names() {
    for (metric, names) in [
        (
            VectorMetric::Cosine,
            ["cosine", "Cosine", "cos", "cosine_distance"],
        ),
        (
            VectorMetric::Euclidean,
            ["l2", "Euclidean", "l2_distance", "array_distance"],
        ),
        (
            VectorMetric::DotProduct,
            ["ip", "DotProduct", "dot_product", "INNER_PRODUCT"],
        ),
    ] {
        for name in names {
            let read = parse(&format!("metric={name}")).expect(name);
            assert_eq!(read.metric, Some(metric), "{name}");
        }
    }
}
