/**
 * Every fault once, under 1000 packets a second of each host, in three labs at a time: most of a fault is waiting.
 * TARTAN_REPEAT=N befalls a fourth lab N times with what must work every time.
 */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { Campaign, ttlSeconds } from './campaign.js';
import { partitionFaults, quorumFaults, storeFaults } from './etcd-faults.js';
import { leaseFaults } from './lease-faults.js';
import { processFaults } from './process-faults.js';
import { underlayFaults } from './underlay-faults.js';

const usual = { hosts: ['a', 'b'], members: 1, ttlSeconds, random: Math.random } as const;
const repetitions = Number(process.env['TARTAN_REPEAT'] ?? 0);
const often = [...processFaults, ...leaseFaults].filter(({ name }) => /SIGTERM|SIGKILL|start|taken/.test(name));
const repeated = Array.from({ length: repetitions }, () => often).flat();

const campaigns = [
  new Campaign('the store', { ...usual, hosts: ['a', 'b', 'c'] }, storeFaults),
  new Campaign('three members', { ...usual, members: 3 }, [...quorumFaults, ...partitionFaults]),
  new Campaign('one host', usual, [...leaseFaults, ...processFaults, ...underlayFaults]),
  ...(repetitions > 0 ? [new Campaign(`again and again`, usual, repeated)] : []),
];
const limitMs = 200_000 + repeated.length * 10_000;

beforeAll(() => {
  for (const campaign of campaigns) campaign.start();
});
afterAll(async () => {
  await Promise.all(campaigns.map(campaign => campaign.close()));
}, limitMs);

for (const campaign of campaigns)
  describe(campaign.name, () => {
    for (const [index, { name }] of campaign.faults.entries()) test(name, () => campaign.result(index), limitMs);
  });
