/** By which engine a pair goes, second by second. */
import { expect, test } from 'vitest';
import {
  askPair,
  describePair,
  isQuestionDue,
  lookAtPair,
  newPair,
  type Pair,
  type PairEvidence,
} from '../../src/datapath/kernel/pair.js';

interface Second {
  readonly isActive?: boolean;
  /** Whether the kernel path answers what is asked in this second. */
  readonly answers?: boolean;
  readonly isUserHeard?: boolean;
}

/** A pair with its peer, looked at each second as the engine does. */
class Course {
  pair: Pair;
  nowMs: number;
  asked = 0;
  #answered: number | undefined;
  #userHeardMs: number | undefined;

  constructor(pair: Pair = newPair('user', 7), nowMs = 1_000_000) {
    this.pair = pair;
    this.nowMs = nowMs;
  }

  pass(seconds: number, { isActive = true, answers = true, isUserHeard = true }: Second = {}): this {
    for (let second = 0; second < seconds; second++) {
      this.nowMs += 1000;
      if (isUserHeard) this.#userHeardMs = this.nowMs - 400;
      const evidence: PairEvidence = {
        nowMs: this.nowMs,
        isActive,
        answeredSequence: this.#answered,
        userHeardMs: this.#userHeardMs,
      };
      this.pair = lookAtPair(this.pair, evidence);
      if (!isQuestionDue(this.pair, evidence)) continue;
      this.asked++;
      this.pair = askPair(this.pair, this.nowMs);
      if (answers) this.#answered = this.pair.sequence;
    }
    return this;
  }

  /** Seconds until the pair has another engine. */
  untilMoved(second: Second = {}): number {
    const { engine } = this.pair;
    for (let passed = 1; passed <= 200; passed++) if (this.pass(1, second).pair.engine !== engine) return passed;
    throw new Error(`it stays in ${engine}`);
  }
}

test('a pair without data is not asked, whatever the path would say', () => {
  const course = new Course().pass(300, { isActive: false });
  expect(course.pair.engine).toBe('user');
  expect(course.asked).toBe(0);
  expect(describePair(course.pair, 4790, course.nowMs)).toContain('no data');
});

test('the kernel takes a pair two seconds after the first answer, while its flows are recorded', () => {
  const course = new Course();
  expect(course.pass(1).pair.movesMs).toBeUndefined();
  expect(course.pass(1).pair).toMatchObject({ engine: 'user', movesMs: course.nowMs + 2000 });
  expect(describePair(course.pair, 4790, course.nowMs)).toContain('about to');
  expect(course.pass(2).pair).toMatchObject({ engine: 'kernel', movesMs: undefined });
  expect(describePair(course.pair, 4790, course.nowMs)).toBeUndefined();
});

test('without an answer it is tried three times, soon again, and then each minute', () => {
  const course = new Course().pass(60, { answers: false });
  expect(course.pair.engine).toBe('user');
  expect(course.asked).toBe(12);
  expect(describePair(course.pair, 4790, course.nowMs)).toBe('no answer on UDP 4790 for 59 s');
  expect(course.pass(60, { answers: false }).asked).toBe(15);
  expect(describePair(course.pair, 4790, course.nowMs)).toBe('no answer on UDP 4790 for 119 s');
  expect(course.pass(60).pair.engine).toBe('kernel');
});

test('a pair that falls silent again while its flows are recorded does not move', () => {
  const course = new Course().pass(2);
  expect(course.pair.movesMs).toBeDefined();
  expect(course.pass(8, { answers: false }).pair).toMatchObject({ engine: 'user', movesMs: undefined });
  expect(course.pass(70).pair.engine).toBe('kernel');
});

test('a silence of five seconds takes it back to user space, one lost answer does not', () => {
  const course = new Course().pass(5);
  expect(course.pass(2, { answers: false }).pass(30).pair.engine).toBe('kernel');
  const seconds = course.untilMoved({ answers: false });
  expect(seconds).toBeGreaterThanOrEqual(5);
  expect(seconds).toBeLessThanOrEqual(7);
  expect(course.pass(3).pair.engine).toBe('user');
  expect(course.pass(10).pair.engine).toBe('kernel');
});

test('a silent daemon is no silent peer: an answer that was waiting counts, however late it is read', () => {
  const course = new Course().pass(5);
  course.nowMs += 60_000;
  expect(course.pass(1).pair.engine).toBe('kernel');
});

test('a pair at rest stays where it is, and the first seconds of new data ask it', () => {
  const course = new Course().pass(5).pass(3600, { isActive: false, answers: false });
  expect(course.pair.engine).toBe('kernel');
  const { asked } = course;
  course.pass(1);
  expect(course.asked).toBe(asked + 1);
});

test('a pair that an earlier daemon had in the kernel must answer within five seconds, also without data', () => {
  const answered = new Course(newPair('kernel', 2 ** 32 - 1)).pass(10, { isActive: false });
  expect(answered.pair.engine).toBe('kernel');
  expect(answered.asked).toBe(1);
  const silent = new Course(newPair('kernel', 1));
  expect(silent.untilMoved({ isActive: false, answers: false })).toBeLessThanOrEqual(7);
});

test('a peer that was away for both engines is tried as soon as user space hears it again', () => {
  const course = new Course().pass(5);
  course.untilMoved({ answers: false, isUserHeard: false });
  course.pass(20, { answers: false, isUserHeard: false });
  expect(course.pair.engine).toBe('user');
  expect(course.untilMoved()).toBeLessThanOrEqual(5);
});

test('a peer that was away for seconds only is tried as soon as user space hears it again, too', () => {
  const course = new Course().pass(5);
  course.untilMoved({ answers: false, isUserHeard: false });
  expect(course.pair.engine).toBe('user');
  expect(course.untilMoved()).toBeLessThanOrEqual(5);
});

test('the answer to a question of before says nothing of now', () => {
  const pair = askPair(newPair('user', 100), 1000);
  const evidence = { nowMs: 1500, isActive: true, userHeardMs: undefined };
  expect(lookAtPair(pair, { ...evidence, answeredSequence: 100 }).movesMs).toBeUndefined();
  expect(lookAtPair(pair, { ...evidence, answeredSequence: 102 }).movesMs).toBeUndefined();
  expect(lookAtPair(pair, { ...evidence, answeredSequence: 101 }).movesMs).toBe(3500);
  const later = askPair(askPair(pair, 2000), 3000);
  expect(lookAtPair(later, { ...evidence, answeredSequence: 101 }).movesMs).toBeDefined();
});
