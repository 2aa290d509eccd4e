/** A lab for the tests of one file: opened before them, closed after them, and its last words when one fails. */
import { afterAll, beforeAll, beforeEach, onTestFailed } from 'vitest';
import { messageOf } from '../../src/lib/errors.js';
import { Scope } from '../../src/lib/scope.js';
import { Lab, type LabOptions } from './lab.js';

/** @param ready what every test of the file starts from */
export function useLab(options: LabOptions, ready: (lab: Lab) => Promise<void> = async () => {}): () => Lab {
  const scope = new Scope((name, error) => process.stderr.write(`closing ${name}: ${messageOf(error)}\n`));
  let lab: Lab | undefined;
  beforeAll(async () => {
    lab = await Lab.open(scope, options);
    try {
      await ready(lab);
    } catch (error) {
      process.stderr.write(`${lab.lastWords()}\n`);
      throw error;
    }
  });
  afterAll(() => scope.close());
  beforeEach(() => {
    onTestFailed(() => {
      process.stderr.write(`${lab?.lastWords() ?? 'the lab did not open'}\n`);
    });
  });
  return () => {
    if (!lab) throw new Error('the lab did not open');
    return lab;
  };
}
