// SPDX-License-Identifier: GPL-2.0-only
//! What a file is understood as, and what users hear of its mistakes.

use super::*;

fn mistake(text: &str) -> String {
    match Contents::parse(text) {
        Ok(contents) => panic!("{contents:?}"),
        Err(mistake) => mistake.to_string(),
    }
}

#[test]
fn a_file_says_what_a_command_line_says() {
    let contents = Contents::parse(
        r#"
# A comment.
hook = "xdp"
interfaces = ["br-*", "wan0", "!br-guest"]
object = "/usr/lib/bpfw.o"
max-connections = 262_144
offload-mark = "0x10/0xf0"
route-mark-mask = 0x3f00
[interface.wan0]
xdp-mode = "native"
[interface."eth0.7"]
xdp-mode = "generic"
"#,
    )
    .expect("it is one");
    assert_eq!(contents.hook, Some(Hook::Xdp));
    assert_eq!(contents.object, Some("/usr/lib/bpfw.o".into()));
    assert_eq!(contents.interfaces, ["br-*", "wan0", "!br-guest"]);
    let options: Vec<(&str, &str)> =
        contents.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let expected = [
        ("max-connections", "262144"),
        ("offload-mark", "0x10/0xf0"),
        ("route-mark-mask", "16128"),
    ];
    assert_eq!(options, expected);
    let modes: Vec<_> = contents.xdp_modes.into_iter().collect();
    assert_eq!(modes, [("eth0.7".into(), XdpMode::Generic), ("wan0".into(), XdpMode::Native)]);
}

#[test]
fn each_option_takes_a_value_in_a_file() {
    for arg in Options::augment_args(Command::new("")).get_arguments() {
        let key = arg.get_long().expect("a long option");
        assert!(arg.get_action().takes_values(), "{key}");
        assert!(!OTHER_KEYS.contains(&key), "{key}");
    }
}

#[test]
fn a_mistake_is_told_with_its_line_and_in_the_command_lines_words() {
    let cases = [
        ("a = \n", "1: string values must be quoted"),
        ("hook = \"tc\"\nhook = \"xdp\"", "2: duplicate key"),
        ("\n\ninterval = 9", "3: invalid value '9' for 'interval': 9 is not in 10..=1000"),
        (
            "offload-mark = '0x1g/0xf0'",
            "1: invalid value '0x1g/0xf0' for 'offload-mark': '0x1g' is",
        ),
        ("log-level = 'loud'", "1: invalid value 'loud' for 'log-level': there are error, warn,"),
        ("hook = 'udp'", "1: invalid value 'udp' for 'hook': there are xdp, tc"),
        ("log-level = true", "1: the value of 'log-level' must be a string or a number"),
        ("interfaces = 'lan0'", "1: the value of 'interfaces' must be a list of strings"),
        ("interfaces = [['lan0']]", "1: the value of 'interfaces' must be a list of strings"),
        ("interface = 'lan0'", "1: 'interface' must be a section, as [interface.wan0]"),
        ("interval = 99999999999999999999", "1: the value of 'interval' must be a string or"),
        (
            "[interface.lan0]\n\nxdpmode = 'native'",
            "3: there is no key 'xdpmode' (did you mean 'xdp-",
        ),
        (
            "[interface.lan0]\nxdp-mode = 'x'",
            "2: invalid value 'x' for 'xdp-mode': there are native",
        ),
        ("[interface.lan0]", "1: the section of 'lan0' says nothing"),
        (
            "interval = 20\nmax-connection = 1",
            "2: there is no key 'max-connection' (did you mean 'max-",
        ),
        ("mtu = 1", "1: there is no key 'mtu' (there are interval, max-connections, prove-every,"),
        ("config = 'x'", "1: there is no key 'config' (there are"),
    ];
    for (text, expected) in cases {
        let mistake = mistake(text);
        assert!(mistake.starts_with(expected), "'{mistake}' of {text}");
        assert!(!mistake.contains('\n'), "{mistake}");
    }
}

#[test]
fn the_distance_of_two_words_is_the_least_number_of_changes() {
    for (one, other, steps) in [
        ("", "", 0),
        ("hook", "hooks", 1),
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("ab", "ba", 2),
    ] {
        assert_eq!((distance(one, other), distance(other, one)), (steps, steps));
    }
}
