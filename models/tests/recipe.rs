//! Built-in recipes, and what is said of recipes that are wrong.

use models::recipe::{Block, Cache, Linears, Maps, Recipe, RecipeError, Weights};

#[test]
fn built_in_recipes_are_what_their_names_say() {
    assert_eq!(Recipe::list().collect::<Vec<_>>(), ["int4", "int8", "f32"]);
    assert!(Recipe::list().any(|name| name == Recipe::DEFAULT), "{}", Recipe::DEFAULT);
    for name in Recipe::list() {
        let recipe = Recipe::named(name).unwrap();
        assert_eq!(recipe.name, name);
        assert!(!recipe.description.is_empty() && !recipe.description.contains('\n'));
        let cache = [("f32", Cache::F32), ("int8", Cache::F16), ("int4", Cache::Int8)];
        assert!(cache.contains(&(name, recipe.cache)), "{name}: {}", recipe.cache);
        assert_eq!(recipe.is_exact(), name == "f32");
        assert_eq!(Recipe::parse(&recipe.to_ron(), "again").unwrap(), recipe);
    }
    let linears = |weights, activation_block| Linears { weights, activation_block };
    let regions = |name| Recipe::named(name).unwrap().regions().map(|(_, linears)| linears);
    assert_eq!(regions("f32"), [linears(Weights::F32, Block::Row); 4]);
    let int8 = |block| linears(Weights::Int8, Block::Channels(block));
    let int4 = linears(Weights::Int4, Block::Channels(128));
    let split = linears(Weights::Int8Split, Block::Channels(128));
    assert_eq!(regions("int8"), [int8(384), int8(384), int8(128), split]);
    assert_eq!(regions("int4"), [int8(384), int8(384), int4, split]);
    let float = |name| Recipe::named(name).unwrap().is_float();
    assert_eq!(["f32", "int8", "int4"].map(float), [true, false, false]);
}

const TEXT: &str = "Recipe(
    name: \"mine\",
    description: \"\",
    vision: Linears(weights: Int8, activation_block: Row),
    projector: Linears(weights: F32, activation_block: Row),
    decoder: Linears(weights: Int4, activation_block: Channels(128)),
    head: Linears(weights: Int8, activation_block: Channels(64)),
    cache: F16,
    maps: F32,
)";

/// The message for [`TEXT`] with one piece replaced.
fn message(from: &str, to: &str) -> String {
    assert!(TEXT.contains(from), "{from}");
    Recipe::parse(&TEXT.replacen(from, to, 1), "my.ron").unwrap_err().to_string()
}

#[test]
fn a_file_of_ones_own_is_read() {
    let recipe = Recipe::parse(TEXT, "my.ron").unwrap();
    assert_eq!((recipe.name.as_str(), recipe.cache, recipe.maps), ("mine", Cache::F16, Maps::F32));
    assert_eq!(recipe.head.activation_block, Block::Channels(64));
    let nameless = TEXT.replace("Recipe(", "(").replace("Linears(", "(");
    assert_eq!(Recipe::parse(&nameless, "my.ron").unwrap(), recipe);
}

#[test]
fn wrong_words_get_the_nearest_right_one() {
    let check = |from: &str, to: &str, parts: &[&str]| {
        let message = message(from, to);
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    };
    let keys = "the keys here are name, description, vision, projector, decoder, head, cache, maps";
    check("decoder:", "decodr:", &["my.ron:6:", "unknown key `decodr`: did you mean `decoder`? ", keys]);
    check("weights: F32", "wieghts: F32", &["my.ron:5:", "unknown key `wieghts`: did you mean `weights`? "]);
    check("cache:", "zzzz:", &["unknown key `zzzz`: the keys"]);
    check(
        "Int4",
        "int4",
        &["my.ron:6:", "unknown Weights `int4`: did you mean `Int4`? one of F32, Int8, Int4, Int8Split"],
    );
    check("cache: F16", "cache: BF16", &["unknown Cache `BF16`: did you mean `F16`? one of F32, F16, Int8"]);
    check("Channels(128)", "Chanels(128)", &["unknown Block `Chanels`: did you mean `Channels`? "]);
    check("    cache: F16,\n", "", &["my.ron:9:", "Recipe: key `cache` is missing"]);
    check("maps: F32", "maps: Int8", &["unknown Maps `Int8`: ", "one of F32, F16"]);
    check("weights: Int4, ", "", &["my.ron:6:", "Linears: key `weights` is missing"]);
    let unknown = Recipe::named("int3").unwrap_err().to_string();
    assert_eq!(unknown, "unknown recipe \"int3\": did you mean `int4`? the built-in ones are int4, int8, f32");
}

#[test]
fn values_are_checked() {
    let check = |from: &str, to: &str, message: &str| assert_eq!(self::message(from, to), message);
    let name = "my.ron: name: 1 to 64 letters, digits, '-', '_' or '.' is expected, found";
    check("mine", "", &format!("{name} \"\""));
    check("mine", "a/../b", &format!("{name} \"a/../b\""));
    check("mine", "\\u{1b}[2J", &format!("{name} \"\\u{{1b}}[2J\""));
    check(
        "Channels(128)",
        "Channels(64)",
        "my.ron: decoder.activation_block: Channels(128), the only block of 4-bit weights, is expected, found Channels(64)",
    );
    check(
        "F32, activation_block: Row",
        "F32, activation_block: Channels(16)",
        "my.ron: projector.activation_block: Row, as float weights take float activations, is expected, found Channels(16)",
    );
    for wrong in ["0", "8", "65552"] {
        let expected = "Row, or Channels(n) with a multiple of 16 up to 65536, is expected";
        let message = message("Channels(64)", &format!("Channels({wrong})"));
        assert_eq!(message, format!("my.ron: head.activation_block: {expected}, found Channels({wrong})"));
    }
}

#[test]
fn what_is_no_recipe_is_refused() {
    let nested = "(".repeat(100_000);
    let long = format!("Recipe(name: \"{}", "x".repeat(100_000));
    for text in ["", "{}", "Recipe(", "Recipe()", "42", "\u{0}", &nested, &long, &TEXT[1..], &format!("{TEXT} more")] {
        let error = Recipe::parse(text, "my.ron").unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("my.ron:") && message.len() < 1000, "{message}");
        assert!(matches!(error, RecipeError::Syntax { .. } | RecipeError::MissingKey { .. }), "{message}");
    }
    let repeated = TEXT.replacen("cache: F16", "cache: F16, cache: F32", 1);
    let message = Recipe::parse(&repeated, "my.ron").unwrap_err().to_string();
    assert!(message.starts_with("my.ron:8:") && message.contains("cache"), "{message}");
    let hostile = TEXT.replacen("mine", &"\u{1b}".repeat(70), 1);
    assert!(!Recipe::parse(&hostile, "my.ron").unwrap_err().to_string().contains('\u{1b}'));
}
