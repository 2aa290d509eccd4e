/** Formats what `tartan doctor` found for one screen: the verdict, the gravest first, then each group in one line. */
import { groups } from '../doctor/check.js';
import type { Diagnosis, DoctorReport } from '../doctor/judge.js';
import { formatFields, type Cell, type Colour, type Field, type Output, type Paint } from './table.js';

const colours: Readonly<Record<Diagnosis['severity'], Colour>> = {
  error: 'bad',
  warning: 'bad',
  note: 'faint',
  unchecked: 'faint',
};

/** `wide` shows what was expected, every check, and what to do about each note. */
export function formatDoctor(report: DoctorReport, output: Exclude<Output, 'json'>, paint: Paint): string {
  const head: readonly Field[] = [['doctor', verdictOf(report)], ...report.fixed.map((line): Field => ['fixed', line])];
  const isShort = ({ severity }: Diagnosis): boolean =>
    output === 'table' && (severity === 'note' || severity === 'unchecked');
  const blocks = report.findings.filter(found => !isShort(found)).map(found => fieldsOf(found, output));
  const short = report.findings.filter(isShort).map(({ severity, evidence }): Field => [severity, evidence]);
  const parts = [head, ...blocks, ...(short.length === 0 ? [] : [short]), groupFields(report, output)];
  return parts.map(fields => formatFields(fields, paint)).join('\n');
}

function verdictOf({ ok, findings, checks }: DoctorReport): Cell {
  const counts = (['error', 'warning', 'note', 'unchecked'] as const).flatMap(severity => {
    const count = findings.filter(one => one.severity === severity).length;
    if (count === 0) return [];
    return severity === 'unchecked' ? [`${count} unchecked`] : [`${count} ${severity}${count === 1 ? '' : 's'}`];
  });
  const what = counts.length === 0 ? 'nothing found' : counts.join(', ');
  return {
    text: `${ok ? 'as it should be' : 'not as it should be'}, ${what} by ${checks.length} checks`,
    colour: ok ? 'good' : 'bad',
  };
}

function fieldsOf(
  { id, severity, evidence, cause, expected, next }: Diagnosis,
  output: 'table' | 'wide',
): readonly Field[] {
  return [
    [severity, { text: id, colour: colours[severity] }],
    ['found', evidence],
    ['cause', cause],
    ...(output === 'wide' ? [['expected', expected] as const] : []),
    ['next', { text: next, colour: 'strong' }],
  ];
}

function groupFields({ checks, findings }: DoctorReport, output: 'table' | 'wide'): readonly Field[] {
  return groups.flatMap((group): readonly Field[] => {
    const own = checks.filter(one => one.group === group);
    if (own.length === 0) return [];
    const bad = findings.filter(one => one.group === group && ['error', 'warning'].includes(one.severity));
    const passed = own.filter(({ found }) => found.length === 0).map(({ name }) => name);
    if (output === 'wide')
      return own.map(({ name, found }): Field => [group, found.length === 0 ? `ok: ${name}` : found.join(', ')]);
    const cell: Cell =
      bad.length === 0
        ? { text: `ok${passed[0] === undefined ? '' : `: ${passed[0]}`}`, colour: 'good' }
        : { text: [...new Set(bad.map(({ id }) => id))].join(', '), colour: 'bad' };
    return [[group, cell]];
  });
}
