//! Templates that try to use up time, memory or stack. Each must end soon, and as an error. A stack that overflows, or an
//! allocation that fails, would end this test program.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use setpoint_data::{ChatTemplate, Message, TemplateError, TemplateVariables};

/// Compiles and renders; the error, or the length of the text.
fn run(source: &str) -> Result<usize, String> {
    let template = ChatTemplate::new("stranger", source).map_err(|e| e.to_string())?;
    let extra = json!({"numbers": (0..1000).collect::<Vec<i64>>()});
    let variables = TemplateVariables { extra: extra.as_object().unwrap().clone(), ..TemplateVariables::default() };
    template.render(&[Message::user("hello there")], true, &variables).map(|text| text.len()).map_err(|e| e.to_string())
}

/// Memory of this process in MiB, at its peak.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Runs a test in a process of its own, whose memory is not that of other tests.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "SETPOINT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.arg(format!("hostile_templates::{test}")).arg("--exact").env(ALONE, "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

/// Runs a template and checks that it fails within its budget.
fn check(name: &str, source: &str, expected: &str) {
    let begin = Instant::now();
    let outcome = run(source);
    let took = begin.elapsed();
    let shown: String = source.chars().take(90).collect();
    // Unoptimised, on a machine that does other work as well, it may take longer.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 10 });
    assert!(took < limit, "{name} took {took:?}: {shown}");
    assert!(peak() < 1024, "{name} brought the process to {} MiB: {shown}", peak());
    let error = outcome.expect_err(&format!("{name} did not fail: {shown}"));
    assert!(error.contains(expected), "{name}: {error}");
}

const OVER: &str = "did not finish within its budget";

/// Doubles `ns.a` fifty times, then does something with it.
fn doubled(start: &str, step: &str, end: &str) -> String {
    format!(
        "{{% set ns = namespace(a={start}, n=0) %}}{{% for i in range(50) %}}{{% set ns.a = {step} %}}{{% endfor %}}{end}"
    )
}

/// Nests `ns.a` a million times, then does something with it.
fn nested(step: &str, end: &str) -> String {
    format!(
        "{{% set ns = namespace(a=1) %}}{{% for i in range(1000) %}}{{% for j in range(1000) %}}{{% set ns.a = {step} %}}{{% endfor %}}{{% endfor %}}{end}"
    )
}

#[test]
fn widths() {
    alone("widths", || {
        for source in [
            "{{ messages|tojson(indent=10000000000) }}",
            "{{ [[[1]]]|tojson(false, 99999999999999999) }}",
            "{{ messages|tojson(separators=('x' * 900000000, ':')) }}",
            "{{ '{:>10000000000}'.format(1) }}",
            "{{ '{:{}}'.format(1, 10000000000) }}",
            "{{ '{0:>{1}}'.format('a', 3000000000) }}",
            "{{ '{:.9999999999f}'.format(1.5) }}",
            "{{ '{:010000000000d}'.format(1) }}",
            "{{ '%010000000000d' % 1 }}",
            "{{ '%*d' % (10000000000, 1) }}",
            "{{ '%.9999999999f' % 1.5 }}",
            "{{ '%9999999999s'|format('x') }}",
            "{{ '%-99999999999999999999999999999s'|format('x') }}",
            "{{ 'a\nb'|indent(10000000000) }}",
            "{{ 'a'|indent(9999999999, true) }}",
            "{{ 'a'|center(10000000000) }}",
            "{{ 'a'.center(10000000000) }}",
            "{{ 'a'.ljust(10000000000) }}",
            "{{ 'a'.rjust(10000000000, 'é') }}",
            "{{ '1'.zfill(10000000000) }}",
            "{{ 'a' * 10000000000 }}",
            "{{ 9223372036854775807 * 'ab' }}",
            "{{ numbers * 10000000000 }}",
            "{{ (1, 2) * 10000000000 }}",
            "{{ [1] * 100000000 }}",
            "{{ ([[1] * 10000] * 10000) ~ '' }}",
            "{{ [1] * 100000000 == [1] * 100000000 }}",
            "{{ [1] * (10 ** 9) }}",
            "{{ numbers|batch(10000000000, 'x')|list }}",
            "{{ numbers|slice(10000000000)|list }}",
            "{{ 'aaaa'|replace('', 'x' * 90000000) }}",
            "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
            "{{ numbers|join('x' * 10000000) }}",
            "{{ ('x' * 10000000).join(['a'] * 1000) }}",
            "{{ ('a ' * 100000)|wordwrap(1, true, 'x' * 10000) }}",
        ] {
            check("width", source, OVER);
        }
        for gone in ["{{ [1] is startingwith 'a' }}", "{{ [1]|zip([2]) }}", "{{ debug() }}"] {
            check("not jinja2's", gone, "unknown");
        }
        check("range", "{{ range(1000000000000000000)|list }}", "range: it has more than");
        check("range of numbers", "{{ range(-100000000000000000000, 100000000000000000000) }}", "range: ");
        check("round", "{{ 1.5|round(9999999999) }}", "round: ");
    });
}

#[test]
fn growing_texts() {
    alone("growing_texts", || {
        for (start, step) in [
            ("'x'", "ns.a ~ ns.a"),
            ("'x'", "ns.a + ns.a"),
            ("'x'", "ns.a * 2"),
            ("'x'", "'%s%s' % (ns.a, ns.a)"),
            ("'x'", "'{0}{0}'.format(ns.a)"),
            ("'x'", "ns.a|replace('x', 'xx')"),
            ("'x'", "ns.a.replace('x', 'xxx')"),
            ("'x'", "[ns.a, ns.a]|join"),
            ("'x'", "''.join([ns.a, ns.a])"),
            ("'x'", "[ns.a, ns.a]|tojson"),
            ("'x'", "[ns.a, ns.a]|string"),
            ("'/ '", "(ns.a ~ ns.a)|urlencode"),
            ("'x'", "ns.a.ljust(ns.a|length * 2, 'y')"),
        ] {
            check("growing", &doubled(start, step, "{{ ns.a|length }}"), OVER);
        }
        let blocks = "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a %}{{ ns.a }}{{ ns.a }}{% endset %}{% endfor %}";
        check("set blocks", blocks, OVER);
        let filters = "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a %}{% filter replace('x', 'xx') %}{{ ns.a }}{% endfilter %}{% endset %}{% endfor %}";
        check("filter blocks", filters, OVER);
        let macros = "{% macro m(x, n) %}{{ x }}{{ m(x ~ x, n + 1) if n < 60 }}{% endmacro %}{{ m('x', 0) }}";
        check("macros", macros, OVER);
        let output = "{% for i in numbers %}{% for j in numbers %}{% for k in numbers %}{{ 'x' * 10000 }}{% endfor %}{% endfor %}{% endfor %}";
        check("output", output, OVER);
        check("raw output", &output.replace("{{ 'x' * 10000 }}", &"y".repeat(100_000)), OVER);
    });
}

#[test]
fn growing_lists() {
    alone("growing_lists", || {
        for end in [
            "{{ ns.a|string }}",
            "{{ ns.a }}",
            "{{ ns.a ~ '' }}",
            "{{ ns.a|tojson }}",
            "{{ ns.a|pprint }}",
            "{{ ns.a == [[ns.a], 1] }}",
            "{{ '%s' % (ns.a,) }}",
            "{{ '{}'.format(ns.a) }}",
        ] {
            check("doubled", &doubled("[1]", "[ns.a, ns.a]", end), OVER);
        }
        for step in ["(ns.a, ns.a)", "{'x': ns.a, 'y': ns.a}", "dict(x=ns.a, y=ns.a)", "[ns.a] * 2"] {
            check("doubled", &doubled("[1]", step, "{{ ns.a }}"), OVER);
        }
        let twins = "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(50) %}{% set ns.a = [ns.a, ns.a] %}{% set ns.b = [ns.b, ns.b] %}{% endfor %}";
        for end in [
            "{{ ns.a == ns.b }}",
            "{{ ns.a < ns.b }}",
            "{{ ns.a in [ns.b] }}",
            "{{ 1 < 2 == ns.a == ns.b }}",
            "{{ [ns.a, ns.b]|unique|list }}",
            "{{ [ns.a, ns.b]|sort }}",
            "{{ [ns.a].index(ns.b) }}",
            "{% for i in [1, 2] %}{{ loop.changed(ns.a) }}{% endfor %}",
            "{{ {(ns.a,): 1} }}",
            "{{ {}[(ns.a,)] }}",
        ] {
            check("twins", &format!("{twins}{end}"), OVER);
        }
        for step in ["ns.a + ns.a", "ns.a * 3", "ns.a|list + ns.a|list", "(ns.a ~ ns.a)|list"] {
            check("long", &doubled("[1, 2]", step, "{{ ns.a|length }}"), OVER);
        }
        let macros = "{% macro m(x, n) %}{{ m([x, x], n + 1) if n < 80 else x }}{% endmacro %}{{ m(1, 0) }}";
        check("doubling macros", macros, OVER);
        let loops = format!(
            "{}{{{{ x50 }}}}{}",
            (0..50)
                .fold("{% with x0 = 1 %}".to_owned(), |all, n| format!("{all}{{% with x{} = [x{n}, x{n}] %}}", n + 1)),
            "{% endwith %}".repeat(51)
        );
        check("doubling scopes", &loops, OVER);
        let recursive = "{% for x in [[1]] recursive %}{{ loop([x, x]) }}{% endfor %}";
        assert!(run(recursive).is_err());
    });
}

#[test]
fn deep_values() {
    alone("deep_values", || {
        for step in [
            "[ns.a]",
            "(ns.a,)",
            "{'x': ns.a}",
            "dict(x=ns.a)",
            "[ns.a]|batch(1)|list",
            "[ns.a]|slice(1)|list",
            "{'k': ns.a}|items|list",
            "{'k': ns.a}.items()",
            "{'k': ns.a}|dictsort",
            "[{'k': ns.a}]|groupby('k')|list",
            "[ns.a][:] and [ns.a]",
            "[ns.a, 1][::-1]",
            "[[ns.a]]|map('list')|list",
            "namespace(x=ns.a)",
        ] {
            check("nested", &nested(step, "{{ ns.a }}"), OVER);
        }
        let sets = format!("{{% set x = 1 %}}{}{{{{ x }}}}", "{% set x = [x] %}".repeat(25_000));
        check("nested sets", &sets, OVER);
        check("nested default", &nested("missing|default([ns.a])", ""), OVER);
        check(
            "nested chain",
            "{% set ns = namespace() %}{% set ns.first = namespace() %}{% set ns.cur = ns.first %}{% for i in range(100000) %}{% set cur = ns.cur %}{% set n = namespace() %}{% set cur.next = n %}{% set ns.cur = n %}{% endfor %}{{ ns.first }}",
            OVER,
        );
    });
}

#[test]
fn values_within_themselves() {
    alone("values_within_themselves", || {
        for source in [
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a = ns %}",
            "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a = {'x': (1, [ns])} %}{{ ns|string }}",
            "{% set ns = namespace() %}{% set x = [ns] %}{% set ns.a = x %}{{ x|tojson }}",
            "{% set a = namespace() %}{% set b = namespace() %}{% set a.x = b %}{% set b.y = a %}{{ a }}",
            "{% set a = namespace() %}{% set b = namespace(y=a) %}{% set a.x = b %}{{ a ~ b }}",
            "{% set a = namespace() %}{% set b = dict(y=a) %}{% set a.x = b %}{{ a == b }}",
            "{% set ns = namespace() %}{% macro m(x) %}{% set ns.a = [x] %}{% endmacro %}{{ m(ns) }}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a, ns.b = ns, 1 %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a | default(ns, true) %}{% endset %}{{ ns }}",
            "{% set ns = namespace() %}{% for x in [ns] %}{% set ns.a = [x, x] %}{% endfor %}{{ ns.a|pprint }}",
        ] {
            check("cycle", source, OVER);
        }
    });
}

#[test]
fn endless_work() {
    alone("endless_work", || {
        let loops = |body: &str| {
            format!("{{% for i in range(99999) %}}{{% for j in range(99999) %}}{body}{{% endfor %}}{{% endfor %}}")
        };
        for body in [
            "",
            "x",
            "{{ i }}",
            "{% if numbers == numbers[:] %}{% endif %}",
            "{% set x = numbers|sort %}",
            "{% set x = numbers|map('string')|list %}",
            "{% set x = numbers|select('odd')|list %}",
            "{% set x = numbers|unique|list %}",
            "{% set x = numbers|sum %}",
            "{% set x = numbers|max %}",
            "{% set x = numbers|tojson %}",
            "{% set x = numbers|last %}",
            "{% set x = -1 in numbers %}",
            "{% set x = numbers[1:] %}",
            "{% set x = ('a' * 100000)|upper %}",
            "{% set x = ('a' * 100000) == ('a' * 100000) %}",
            "{% set x = 'b' in 'a' * 100000 %}",
            "{% set x = ('a' * 100000)[-1:] %}",
            "{% set x = ('a' * 100000).split('a') %}",
            "{% set x = ('a' * 10000)|wordcount %}",
            "{% set x = ('<' * 10000)|striptags %}",
            "{% set x = ('&' * 10000)|striptags %}",
            "{% set x = ('a' * 1000000)[-1] %}",
            "{% set x = numbers|map(attribute='a' * 100000)|list %}",
            "{% set x = ('a' * 100000).strip('a' * 100000) %}",
            "{% set x = {'a': 1}['a' * 100000] %}",
            "{% set x = {'a' * 100000: 1} %}",
            "{% set x = strftime_now('%d' * 500) %}",
            "{% set x = numbers|random %}",
        ] {
            let expected = if body.contains("random") { "same text each time" } else { OVER };
            check("loop", &loops(body), expected);
        }
        check("macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion limit");
        check(
            "branching macro",
            "{% macro m(n) %}{% if n < 60 %}{{ m(n + 1) }}{{ m(n + 1) }}{% endif %}{% endmacro %}{{ m(0) }}",
            OVER,
        );
        check(
            "caller",
            "{% macro m() %}{{ caller() }}{{ caller() }}{% call m() %}x{% endcall %}{% endmacro %}{% call m() %}y{% endcall %}",
            "",
        );
        check("recursive loop", "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", "");
        check("block", "{% block a %}{{ self.a() }}{% endblock %}", "");
        check("include", "{% include 'chat_template' %}", "");
        check("extends", "{% extends 'chat_template' %}", "");
        check("power", "{{ 9 ** 9 ** 9 ** 9 }}", "");
    });
}

#[test]
fn sources() {
    alone("sources", || {
        let many = |part: &str, n: usize| part.repeat(n);
        for source in [
            format!("{{{{ {}1 }}}}", many("not ", 50_000)),
            format!("{{{{ {}1 }}}}", many("-", 100_000)),
            format!("{{{{ {}1{} }}}}", many("(", 50_000), many(")", 50_000)),
            format!("{{{{ {}1{} }}}}", many("[", 50_000), many("]", 50_000)),
            format!("{{{{ {}1{} }}}}", many("{'a':", 50_000), many("}", 50_000)),
            format!("{{{{ x{} }}}}", many(".a", 50_000)),
            format!("{{{{ x{} }}}}", many("[0]", 50_000)),
            format!("{{{{ x{} }}}}", many("|list", 50_000)),
            format!("{{{{ x{} }}}}", many("()", 50_000)),
            format!("{{{{ x{} }}}}", many(" ~ x", 50_000)),
            format!("{{{{ 1{} }}}}", many(" + 1", 50_000)),
            format!("{{{{ 1{} }}}}", many(" ** 1", 50_000)),
            format!("{{{{ x{} }}}}", many(" and x", 50_000)),
            format!("{{{{ x{} }}}}", many(" if x else x", 30_000)),
            format!("{{{{ x{} }}}}", many(" < x", 50_000)),
            format!("{{{{ x{} }}}}", many(" is defined", 30_000)),
            format!("{{% if x %}}{}{{% endif %}}", many("{% elif x %}", 30_000)),
            format!("{{% set {} = 1 %}}", many("a, ", 50_000)),
            many("a", 2_000_000),
            many("{{ 1 }}", 200_000),
        ] {
            check("source", &source, OVER);
        }
        let long = "a".repeat(400_000);
        check("name", &format!("{{{{ {long} }}}}"), OVER);
        check("date", "{{ strftime_now('%c' * 100000) }}", OVER);
        // As large as the limits allow: an error or not, but an end.
        for source in [
            format!("{{{{ {}1 }}}}", many("not ", 4000)),
            format!("{{{{ {}1 }}}}", many("-", 4000)),
            format!("{{{{ x{} }}}}", many("[0]", 1300)),
            format!("{{{{ x{} }}}}", many("|list", 2000)),
            format!("{{{{ x{} }}}}", many(" ~ x", 2000)),
            format!("{{{{ 1{} }}}}", many(" + 1", 2000)),
            format!("{{{{ x{} }}}}", many(" if x else x", 130)),
            format!("{{{{ {}1{} }}}}", many("[", 140), many("]", 140)),
            format!("{{% if x %}}{}{{% endif %}}", many("{% elif x %}", 500)),
            format!("{}{}", many("{% if 1 %}", 140), many("{% endif %}", 140)),
        ] {
            let _ = run(&source);
        }
        for block in [
            "{% if x %}",
            "{% for x in y %}",
            "{% with %}",
            "{% macro m() %}",
            "{% filter upper %}",
            "{% set x %}",
            "{% call m() %}",
        ] {
            check("blocks", &many(block, 20_000), "");
        }
        for unclosed in ["{{ '", "{# ", "{% raw %}", "{{", "{%", "{{ (", "{{ '\\"] {
            check("unclosed", &format!("{unclosed}{}", many(" {%", 50_000)), "");
        }
    });
}

#[test]
fn a_data_set_does_not_wait_for_each_row() {
    let source = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}";
    let template = ChatTemplate::new("stranger", source).unwrap();
    let begin = Instant::now();
    for _ in 0..10_000 {
        let outcome = template.render(&[Message::user("hi")], true, &TemplateVariables::default());
        assert_eq!(outcome, Err(TemplateError::OverBudget));
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}

#[test]
fn what_real_templates_do_is_within_the_budget() {
    for source in [
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content|trim }}{% endfor %}",
        "{% set ns = namespace(all=[], last=none) %}{% for i in numbers %}{% set ns.all = ns.all + [{'n': i, 'm': messages}] %}{% set ns.last = messages[0] %}{% endfor %}{{ ns.all|length }}{{ ns.last.role }}",
        "{% set outer = namespace(inner=namespace(x=1)) %}{% set inner = outer.inner %}{% set inner.x = 2 %}{{ outer.inner.x }}",
        "{% for i in numbers %}{% set ns = namespace(x=i) %}{% set ns.x = ns.x + 1 %}{{ ns.x }}{% endfor %}",
        "{{ numbers|tojson(indent=4) }}{{ '%5d|%-9s' % (3, 'a') }}{{ '{:>9}'.format('b') }}{{ 'a'|center(30) }}{{ '-' * 80 }}",
        "{% macro m(n) %}{% if n %}{{ n }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
        "{{ [0] * 100 }}{{ numbers[::-1][:5] }}{{ 1 < 2 < 3 }}{{ numbers|sort(reverse=true)|first }}",
    ] {
        run(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    }
}
