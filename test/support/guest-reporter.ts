/** In a guest (guest.ts): tells each test, and each error outside of one, as a line of JSON on the device of TARTAN_GUEST_RESULTS. */
import { appendFileSync } from 'node:fs';
import type { Reporter, SerializedError, TestCase, TestModule } from 'vitest/node';
import { errorsOutsideTests } from './reporter.js';

/** One line; `end` is the last one of a run that came to its end. */
export interface GuestResult {
  readonly file?: string;
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped' | 'end';
  readonly ms?: number;
  readonly errors?: readonly string[];
}

export default class GuestReporter implements Reporter {
  onTestCaseResult(test: TestCase): void {
    const { state, errors } = test.result();
    if (state === 'pending') return;
    const ms = Math.round(test.diagnostic()?.duration ?? 0);
    tell({ file: test.module.relativeModuleId, name: test.fullName, state, ms, errors: textsOf(errors ?? []) });
  }

  onTestModuleEnd(module: TestModule): void {
    const errors = errorsOutsideTests(module);
    if (errors.length > 0)
      tell({ file: module.relativeModuleId, name: 'outside of its tests', state: 'failed', errors: textsOf(errors) });
  }

  onTestRunEnd(_: readonly TestModule[], errors: readonly SerializedError[]): void {
    tell({ name: 'the run', state: 'end', errors: textsOf(errors) });
  }
}

function textsOf(errors: readonly { readonly message: string; readonly stack?: string }[]): readonly string[] {
  return errors.map(({ message, stack }) => `${message}\n${stack ?? ''}`.slice(0, 1500));
}

function tell(result: GuestResult): void {
  appendFileSync(process.env['TARTAN_GUEST_RESULTS'] ?? '/dev/null', `${JSON.stringify(result)}\n`);
}
