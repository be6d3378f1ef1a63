//! What templates of whole bodies may use: names, functions, filters and tests. Owns saying so, and finding what a template uses
//! beyond it before a request does; knows nothing of rendering.

use std::collections::BTreeSet;

use minijinja::machinery::{Instruction, get_compiled_template};
use minijinja::{Environment, Error, ErrorKind};

/// What a template may name.
const NAMES: [&str; 13] = [
    "body",
    "captures",
    "claims",
    "client_ip",
    "host",
    "identity",
    "method",
    "path",
    "query",
    "request_id",
    "rest",
    "scheme",
    "status",
];
const NAME: &str = "body";
/// What a few letters of a template could make large without a step for each byte: a body must not steer these.
const NOT_HERE: [&str; 5] = ["namespace", "range", "debug", "lipsum", "cycler"];
const NOT_FILTERS: [&str; 4] = ["format", "indent", "center", "pprint"];

/// All that a template finds around it, without bounds.
#[must_use]
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    for name in NOT_HERE {
        environment.remove_global(name);
    }
    for name in NOT_FILTERS {
        environment.remove_filter(name);
    }
    environment
}

/// What a template uses that there is not, each told in words with its line, in order. A request would find it out
/// at the same place each time.
///
/// # Errors
/// It is not well formed.
pub fn faults(source: &str) -> Result<Vec<String>, Error> {
    let mut environment = environment();
    environment.add_template_owned(NAME, source.to_owned())?;
    let template = environment.get_template(NAME)?;
    let instructions = &get_compiled_template(&template).instructions;
    let all = || (0..).map_while(|at| instructions.get(at).map(|instruction| (at, instruction)));
    let globals = environment.globals().map(|(name, _)| name.to_owned());
    let mut known: BTreeSet<String> = globals.collect();
    known.extend(NAMES.map(str::to_owned));
    let set = all().filter_map(|(_, instruction)| match instruction {
        Instruction::StoreLocal(name) => Some((*name).to_owned()),
        _ => None,
    });
    known.extend(set);
    let mut state = environment.empty_state();
    let mut faults: Vec<String> = Vec::new();
    for (at, instruction) in all() {
        let fault = match instruction {
            Instruction::Lookup(name) if *name != "loop" && !known.contains(*name) => {
                format!("nothing is named {name:?}")
            }
            Instruction::CallFunction(name, _) if environment.globals().all(|(own, _)| own != *name) => {
                format!("there is no function {name:?}")
            }
            Instruction::ApplyFilter(name, ..)
                if is(state.apply_filter(name, &[]).map(drop), ErrorKind::UnknownFilter) =>
            {
                format!("there is no filter {name:?}")
            }
            Instruction::PerformTest(name, ..)
                if is(state.perform_test(name, &[]).map(drop), ErrorKind::UnknownTest) =>
            {
                format!("there is no test {name:?}")
            }
            // The value itself counts. Without another the reader of templates would come to nothing.
            Instruction::CallMethod("cycle", count) if count.is_none_or(|count| count < 2) => {
                "loop.cycle takes values, named one by one".to_owned()
            }
            Instruction::CallMethod(name, _) if !["cycle", "changed"].contains(name) => {
                format!("there is no method {name:?}")
            }
            Instruction::CallObject(_) => "what is called is no function".to_owned(),
            _ => continue,
        };
        let line = instructions.get_line(at).unwrap_or(1);
        let fault = format!("{fault} (line {line} of it)");
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    Ok(faults)
}

fn is(result: Result<(), Error>, kind: ErrorKind) -> bool {
    result.is_err_and(|error| error.kind() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_not_is_found_wherever_it_stands() {
        for (source, fault) in [
            ("{% for i in range(3) %}{% endfor %}", "no function \"range\""),
            (
                "\n{% if false %}{{ body.s|indent(2) }}{% endif %}",
                "no filter \"indent\" (line 2",
            ),
            ("{% filter nope %}x{% endfilter %}", "no filter \"nope\""),
            ("{{ 1 if body.s is not strange }}", "no test \"strange\""),
            ("{{ bdy.s }}", "nothing is named \"bdy\""),
            ("{{ body.s.upper() }}", "no method \"upper\""),
            ("{{ body.s[0](1) }}", "no function"),
            ("{{ body() }}", "no function \"body\""),
            (
                "{% for i in body.l %}{{ loop.cycle() }}{% endfor %}",
                "loop.cycle",
            ),
            (
                "{% for i in body.l %}{{ loop.cycle(*body.l) }}{% endfor %}",
                "loop.cycle",
            ),
        ] {
            let faults = faults(source).expect("well formed");
            assert!(
                faults.len() == 1 && faults[0].contains(fault),
                "{source}: {faults:?}"
            );
        }
        for source in [
            "{% for i in body.l|sort|unique|list %}{{ loop.index }}{{ loop.cycle(1, 2) }}{{ i|upper }}{% endfor %}",
            "{% set x = body.s|default('n') %}{% if x is defined and x is string %}{{ x ~ status }}{% endif %}",
            "{% for i in body.l recursive %}{{ loop(i.l) }}{% endfor %}{{ dict(a=1) }}{{ claims.sub }}{{ captures.id }}",
            "{{ body|tojson }}{{ body.l|map(attribute='a')|join(', ') }}{% with y = 1 %}{{ y }}{% endwith %}",
            "{% for k, v in body|items %}{{ k }}{{ v }}{% endfor %}{{ identity }}{{ rest }}{{ query }}",
        ] {
            assert_eq!(
                faults(source).expect("well formed"),
                Vec::<String>::new(),
                "{source}"
            );
        }
        assert!(faults("{% if %}").is_err());
    }
}
