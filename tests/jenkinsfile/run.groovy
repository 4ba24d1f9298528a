// Runs Jenkinsfiles of declarative form with the Groovy that Jenkins has, and prints what they did as JSON:
//   groovy run.groovy <scenarios.json>
// The syntax is Groovy's own affair. What the directives mean is written here after
// https://www.jenkins.io/doc/book/pipeline/syntax/ and is no Jenkins; what is not known here is an error.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilerConfiguration

class Unknown extends RuntimeException { Unknown(String text) { super(text) } }
class Failed extends RuntimeException { Failed(String text) { super(text) } }
class Aborted extends RuntimeException { Aborted(String text) { super(text) } }

class Build {
    Map scenario
    Map values
    List events = []
    String result = 'SUCCESS'
    void note(String kind, String stage, String text) { events << [kind: kind, stage: stage, text: text] }
}

abstract class Directive {
    Build build
    Set seen = []
    void once(String name) { if (!seen.add(name)) throw new Unknown("${name} is there twice") }
    Object propertyMissing(String name) {
        if (name == 'any' || name == 'none') return name
        if (build.values.containsKey(name)) return build.values[name]
        throw new Unknown("no property ${name} in ${getClass().simpleName}")
    }
    Object methodMissing(String name, Object arguments) {
        throw new Unknown("no directive ${name} in ${getClass().simpleName}")
    }
    Object run(Directive inner, Closure body) {
        inner.build = build
        body.delegate = inner
        body.resolveStrategy = Closure.DELEGATE_ONLY
        body.call()
    }
}

class Environment extends Directive {
    String stage = ''
    void propertyMissing(String name, Object value) {
        once(name)
        build.values.env[name] = value.toString()
        build.note('environment', stage, "${name}=${value}")
    }
    String credentials(String id) { "credentials:${id}" }
}

class Options extends Directive {
    void timeout(Map how) {
        once('timeout')
        if (how.keySet() != ['time', 'unit'] as Set || !(how.time instanceof Integer)) throw new Unknown("timeout ${how}")
        java.util.concurrent.TimeUnit.valueOf(how.unit)
    }
    void disableConcurrentBuilds() { once('disableConcurrentBuilds') }
    void skipDefaultCheckout() { once('skipDefaultCheckout') }
}

class When extends Directive {
    boolean early = false
    Closure condition
    void beforeInput(boolean value) { once('beforeInput'); early = value }
    void expression(Closure body) { once('expression'); condition = body }
}

class Input extends Directive {
    Map said = [:]
    void message(String text) { once('message'); said.message = text }
    void ok(String text) { once('ok'); said.ok = text }
    void submitter(String text) { once('submitter'); said.submitter = text }
}

class Steps extends Directive {
    String stage
    int count = 0
    void sh(String command) {
        count++
        build.note('sh', stage, command)
        if (build.scenario.fails && command.contains(build.scenario.fails)) throw new Failed(command)
    }
}

class Expression extends Directive { }

class Stage extends Directive {
    String name
    When condition
    Closure steps
    Input gate
    void options(Closure body) { once('options'); run(new Options(), body) }
    void when(Closure body) {
        once('when')
        condition = new When()
        run(condition, body)
        if (!condition.condition) throw new Unknown("${name}: when without a condition")
    }
    void input(Closure body) {
        once('input')
        gate = new Input()
        run(gate, body)
        if (!gate.said.message) throw new Unknown("${name}: input without a message")
    }
    Closure variables
    void environment(Closure body) { once('environment'); variables = body }
    void steps(Closure body) { once('steps'); steps = body }
    boolean wanted() { condition == null || run(new Expression(), condition.condition) as boolean }
    void ask() {
        if (!gate) return
        build.note('input', name, gate.said.submitter ?: '')
        if (!(name in (build.scenario.approved ?: []))) throw new Aborted(name)
    }
    void execute() {
        if (!steps) throw new Unknown("${name}: no steps")
        if (condition?.early && !wanted()) return
        ask()
        if (!condition?.early && !wanted()) return
        if (variables) run(new Environment(stage: name), variables)
        def inner = new Steps(stage: name)
        run(inner, steps)
        if (!inner.count) throw new Unknown("${name}: empty steps")
    }
}

class Stages extends Directive {
    void stage(String name, Closure body) {
        once(name)
        def stage = new Stage(name: name)
        run(stage, body)
        if (build.result != 'SUCCESS') return
        try {
            stage.execute()
        } catch (Failed error) {
            build.result = 'FAILURE'
        } catch (Aborted error) {
            build.result = 'ABORTED'
        }
    }
}

class Post extends Directive {
    Map bodies = [:]
    void always(Closure body) { once('always'); bodies.always = body }
    void success(Closure body) { once('success'); bodies.SUCCESS = body }
    void failure(Closure body) { once('failure'); bodies.FAILURE = body }
    void finish() {
        build.values.currentBuild.currentResult = build.result
        ['always', build.result].findAll { bodies[it] }.each { run(new Steps(stage: "post ${it}"), bodies[it]) }
    }
}

class Pipeline extends Directive {
    Post after
    void agent(String label) { once('agent') }
    void options(Closure body) { once('options'); run(new Options(), body) }
    void environment(Closure body) { once('environment'); run(new Environment(), body) }
    void stages(Closure body) { once('stages'); run(new Stages(), body) }
    void post(Closure body) { once('post'); after = new Post(); run(after, body) }
}

abstract class Declarative extends Script {
    void pipeline(Closure body) {
        def whole = new Pipeline(build: binding.getVariable('build'))
        whole.run(whole, body)
        if (!whole.seen.containsAll(['agent', 'stages'])) throw new Unknown('pipeline needs agent and stages')
        whole.after?.finish()
    }
}

def configuration = new CompilerConfiguration(scriptBaseClass: Declarative.name)
def done = new JsonSlurper().parse(new File(args[0])).collect { scenario ->
    def build = new Build(scenario: scenario)
    build.values = [env: [JOB_BASE_NAME: scenario.job] + scenario.params, params: scenario.params, currentBuild: [:]]
    def shell = new GroovyShell(getClass().classLoader, new Binding([build: build]), configuration)
    try {
        shell.evaluate(new File(scenario.file))
        [result: build.result, events: build.events]
    } catch (Exception error) {
        [error: error.message]
    }
}
println JsonOutput.toJson(done)
