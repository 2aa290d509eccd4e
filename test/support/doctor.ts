/** What `tartan doctor` says of a host of a lab. */
import { expect } from 'vitest';
import type { DoctorReport } from '../../src/doctor/judge.js';
import type { LabHost } from './lab-host.js';

/** @param before what comes before the command */
export async function lookAt(host: LabHost, before: readonly string[] = []): Promise<DoctorReport> {
  const docker = host.engine ? ['--docker-host', host.engine.url] : [];
  const { stdout, stderr } = await host.toolBehind(before, 'doctor', '-o', 'json', ...docker);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as DoctorReport;
}

/** The ids of its errors and warnings, the gravest first. */
export function namesOf({ findings }: DoctorReport): readonly string[] {
  return findings.filter(({ severity }) => severity === 'error' || severity === 'warning').map(({ id }) => id);
}

/** Neither an error nor a warning is found on a host where all is well. @param besides what a test itself did */
export async function expectWell(host: LabHost, besides: readonly string[] = []): Promise<void> {
  const report = await lookAt(host);
  const found = namesOf(report).filter(id => !besides.includes(id));
  expect(found, JSON.stringify(report.findings)).toEqual([]);
  expect(report.ok).toBe(true);
}
