/** The server extension's answers, typed. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export interface IRatio {
  value: number;
  low: number;
  high: number;
  baseline: string;
}

export interface IRunSummary {
  id: string;
  title: string;
  target: string;
  language: string;
  status: string;
  judged: number;
  speedup: number | null;
  baseline: string;
  evidence: string;
}

export interface IRow {
  id: string;
  order: number;
  generation: number;
  title: string;
  language: string;
  verdict: string;
  evidence: string;
  speedup: IRatio | null;
  pinned: boolean;
  rejected: string | null;
  banned: boolean;
}

export interface IRun {
  id: string;
  seq: number;
  title: string;
  status: string;
  phase: string;
  reason: string;
  target: string;
  judged: number;
  budget: number | null;
  best: string | null;
  rows: IRow[];
}

export interface ICandidate extends IRow {
  source: string;
  notes: string;
  reasons: string[];
  diagnosis: string;
}

async function request<T>(path: string, body?: unknown): Promise<T> {
  const settings = ServerConnection.makeSettings();
  const url = URLExt.join(settings.baseUrl, 'kernelevolve', path);
  const init: RequestInit = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
  const response = await ServerConnection.makeRequest(url, init, settings);
  if (!response.ok) {
    throw new Error(response.statusText || `The server answered ${response.status}.`);
  }
  return (await response.json()) as T;
}

export const runs = () => request<{ runs: IRunSummary[] }>('runs').then(answer => answer.runs);
export const run = (id: string) => request<IRun>(`runs/${id}`);
export const candidate = (id: string, name: string) => request<ICandidate>(`runs/${id}/candidates/${name}`);
export const steer = (id: string, command: object) => request<{ accepted: number }>(`runs/${id}/steer`, command);
export const notebook = (folder: string) => request<{ path: string }>('notebook', { folder });
