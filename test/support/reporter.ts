/**
 * For the last lines of `npm test`: writes "passed failed skipped" to the file named by TARTAN_COUNTS, and below that
 * each failure with its errors. A skip that allowed-skips.txt does not name counts as failed, and so does every error
 * outside a test.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, SerializedError, TestCase, TestModule, TestSuite } from 'vitest/node';

export default class CountingReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly SerializedError[]): void {
    const file = process.env['TARTAN_COUNTS'];
    if (file === undefined) return;
    const allowed = allowedSkips();
    const counts = { passed: 0, failed: 0, skipped: 0 };
    const told: string[] = [];
    const fail = (name: string, causes: readonly SerializedError[]): void => {
      counts.failed++;
      told.push(`  ${name}`, ...causes.map(textOf));
    };
    for (const error of errors) fail('outside of the files', [error]);
    for (const module of modules) {
      for (const error of errorsOutsideTests(module)) fail(`${module.relativeModuleId} outside of its tests`, [error]);
      for (const test of module.children.allTests()) {
        const result = verdict(test, allowed);
        if (result === 'failed') fail(nameOf(test), test.result().errors ?? [{ message: 'did not run' }]);
        else counts[result]++;
      }
    }
    writeFileSync(file, `${[`${counts.passed} ${counts.failed} ${counts.skipped}`, ...told].join('\n')}\n`);
  }
}

function verdict(test: TestCase, allowed: ReadonlySet<string>): 'passed' | 'failed' | 'skipped' {
  const { state } = test.result();
  if (state === 'passed') return 'passed';
  if (state === 'failed') return 'failed';
  const name = nameOf(test);
  const known = allowed.has(name);
  process.stdout.write(`${known ? 'skipped' : 'NOT RUN and not in allowed-skips.txt'}: ${name}\n`);
  return known ? 'skipped' : 'failed';
}

function nameOf(test: TestCase): string {
  return `${test.module.relativeModuleId} > ${test.fullName}`;
}

/** Of its hooks and of the file itself. */
export function errorsOutsideTests(module: TestModule): readonly SerializedError[] {
  const suites: readonly (TestModule | TestSuite)[] = [module, ...module.children.allSuites()];
  return suites.flatMap(suite => suite.errors());
}

/** The message, what was received instead, and the line of the test. */
function textOf({ message, diff, stack }: SerializedError): string {
  const place = stack?.split('\n').find(line => line.includes('/test/'));
  const parts = [message, diff, place?.trim()].filter(part => typeof part === 'string');
  return stripVTControlCharacters(parts.join('\n')).slice(0, 2000).replaceAll(/^/gm, '    ');
}

/** Lines of `name TAB reason`; a name without a reason is not allowed. */
function allowedSkips(): ReadonlySet<string> {
  const text = readFileSync(new URL('allowed-skips.txt', import.meta.url), 'utf8');
  const rows = text.split('\n').filter(line => !line.startsWith('#'));
  return new Set(rows.map(row => row.split('\t')).flatMap(([name, reason]) => (name && reason ? [name] : [])));
}
