/** What `tartan doctor` says of a host of a lab. */
import { expect } from 'vitest';
import type { DoctorReport } from '../../src/doctor/judge.js';
import type { LabHost } from './lab-host.js';

export async function lookAt(host: LabHost): Promise<DoctorReport> {
  const docker = host.engine ? ['--docker-host', host.engine.url] : [];
  const { stdout, stderr } = await host.tool('doctor', '-o', 'json', ...docker);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as DoctorReport;
}

/** The ids of its errors and warnings, the gravest first. */
export function namesOf({ findings }: DoctorReport): readonly string[] {
  return findings.filter(({ severity }) => severity === 'error' || severity === 'warning').map(({ id }) => id);
}

/** Neither an error nor a warning is found on a host where all is well. */
export async function expectWell(host: LabHost): Promise<void> {
  const report = await lookAt(host);
  expect(namesOf(report), JSON.stringify(report.findings)).toEqual([]);
  expect(report.ok).toBe(true);
}
