/**
 * Counts for the last line of `npm test`: writes "passed failed skipped" to the file named by TARTAN_COUNTS. A skip
 * that allowed-skips.txt does not name counts as failed, and so does every error outside a test.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestCase, TestModule, TestSuite } from 'vitest/node';

export default class CountingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[]): void {
    const file = process.env['TARTAN_COUNTS'];
    if (file === undefined) return;
    const allowed = allowedSkips();
    const counts = { passed: 0, failed: errors.length, skipped: 0 };
    for (const module of modules) {
      counts.failed += errorsOutsideTests(module);
      for (const test of module.children.allTests()) counts[verdict(test, allowed)]++;
    }
    writeFileSync(file, `${counts.passed} ${counts.failed} ${counts.skipped}\n`);
  }
}

function verdict(test: TestCase, allowed: ReadonlySet<string>): 'passed' | 'failed' | 'skipped' {
  const { state } = test.result();
  if (state === 'passed') return 'passed';
  if (state === 'failed') return 'failed';
  const name = `${test.module.relativeModuleId} > ${test.fullName}`;
  const known = allowed.has(name);
  process.stdout.write(`${known ? 'skipped' : 'NOT RUN and not in allowed-skips.txt'}: ${name}\n`);
  return known ? 'skipped' : 'failed';
}

function errorsOutsideTests(module: TestModule): number {
  const suites: readonly (TestModule | TestSuite)[] = [module, ...module.children.allSuites()];
  return suites.reduce((sum, suite) => sum + suite.errors().length, 0);
}

/** Lines of `name TAB reason`; a name without a reason is not allowed. */
function allowedSkips(): ReadonlySet<string> {
  const text = readFileSync(new URL('allowed-skips.txt', import.meta.url), 'utf8');
  const rows = text.split('\n').filter(line => !line.startsWith('#'));
  return new Set(rows.map(row => row.split('\t')).flatMap(([name, reason]) => (name && reason ? [name] : [])));
}
