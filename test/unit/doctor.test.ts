/** What doctor judges, fact by fact: the id, the cause and the next step of each finding, and nothing on a sound host. */
import { describe, expect, test } from 'vitest';
import type { DoctorFacts } from '../../src/doctor/facts.js';
import { judgeAll, type DoctorReport } from '../../src/doctor/judge.js';
import { known } from '../../src/lib/fact.js';
import { formatDoctor } from '../../src/tool/doctor-view.js';
import { watchedPeer, wellFacts, wellStatus } from '../support/doctor-facts.js';
import { kernelRows } from '../support/doctor-kernel-rows.js';
import { away, rows, withProblem, withStatus } from '../support/doctor-rows.js';

const { host, underlay } = wellFacts;
const plain = (text: string): string => text;

function judged(change: Partial<DoctorFacts>): DoctorReport {
  return judgeAll({ ...wellFacts, ...change }, wellStatus.version);
}

test('nothing is found on a sound host, and each group says what is well', () => {
  const report = judged({});
  expect(report.findings).toEqual([]);
  expect(report.ok).toBe(true);
  const text = formatDoctor(report, 'table', plain);
  expect(text).toMatch(/^doctor\s+as it should be, nothing found by \d+ checks/);
  for (const group of ['Store', 'Underlay', 'Peers', 'Data plane', 'Docker', 'Host'])
    expect(text).toMatch(new RegExp(`^${group} +ok: `, 'm'));
  expect(formatDoctor(report, 'wide', plain)).toContain('eth1 198.51.100.1');
});

describe('each fact has its finding', () => {
  test.each([...rows, ...kernelRows])('%s %s %s', (severity, id, words, change) => {
    const { findings, ok } = judged(change);
    const found = findings.filter(one => one.id === id && words.test(`${one.evidence}\n${one.cause}\n${one.next}`));
    expect(
      found.map(one => one.severity),
      JSON.stringify(findings),
    ).toEqual([severity]);
    expect(ok).toBe(!findings.some(one => one.severity === 'error'));
  });

  test('and every one has a cause, what is expected and a next step', () => {
    for (const [, , , change] of [...rows, ...kernelRows])
      for (const { id, evidence, cause, expected, next } of judged(change).findings)
        expect(
          [evidence, cause, expected, next].every(text => text.trim() !== ''),
          id,
        ).toBe(true);
  });
});

test('one fault is told once', () => {
  const reason = '192.0.2.2 is silent';
  const peers = [watchedPeer({ state: 'silent', reason })];
  const told = withProblem('peers', `${reason}: look there`, { peers });
  expect(judged(told).findings.map(({ id }) => id)).toEqual(['peer-silent']);
  const gone = { ...withProblem('underlay', 'underlay_lost'), underlay: { ...underlay, link: known(undefined) } };
  expect(judged(gone).findings.map(({ id }) => id)).toEqual(['underlay-problem']);
});

test('many silent peers are a few findings and a sum', () => {
  const peers = Array.from({ length: 5000 }, (_, at) =>
    watchedPeer({ state: 'silent' }, { subnet: `10.${at >> 8}.${at & 255}.0/24` }),
  );
  const { findings } = judged(withStatus({ peers }));
  expect(findings.length).toBeLessThan(20);
  expect(findings.some(({ evidence }) => evidence === '4992 more peers are silent')).toBe(true);
});

test('the daemon that is away comes first, and the text has no control bytes of others', () => {
  const drops = known([{ what: 'in', rule: 'nft \u001b[31m drops', repair: 'x', peers: [] }] as const);
  const report = judged({ status: away, host: { ...host, tunDevice: known('ENOENT') } });
  expect(report.findings[0]?.id).toBe('daemon-away');
  const text = formatDoctor(judged({ underlay: { ...underlay, drops } }), 'table', plain);
  expect(text).toContain('nft ?[31m drops');
  expect(text.split('\n')[0]).toMatch(/^doctor\s+not as it should be, 1 error by/);
});
