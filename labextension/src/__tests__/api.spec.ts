import { ServerConnection } from '@jupyterlab/services';
import { SwiftServer } from '../api';

const BASE = 'http://localhost/user/a/';

/** A server that answers every request alike and notes what was asked. */
function serverThatAnswers(body: string, status = 200) {
  const requests: Request[] = [];
  const settings = ServerConnection.makeSettings({
    baseUrl: BASE,
    token: 'secret',
    fetch: async (request: RequestInfo | URL) => {
      requests.push(request as Request);
      return new Response(body, { status, statusText: 'Status' });
    }
  });
  return { server: new SwiftServer(settings), requests };
}

it('asks below the base URL with the token', async () => {
  const { server, requests } = serverThatAnswers('{"runs": []}');

  await expect(server.runs()).resolves.toEqual([]);

  expect(requests[0].url).toContain(`${BASE}swift-jupyter/runs`);
  expect(requests[0].headers.get('Authorization')).toBe('token secret');
});

it('keeps a strange run id inside its path segment', async () => {
  const { server, requests } = serverThatAnswers('{}');

  await server.stop('../../api/shutdown?x');

  expect(requests[0].method).toBe('POST');
  expect(requests[0].url).toContain(
    'swift-jupyter/runs/..%2F..%2Fapi%2Fshutdown%3Fx/stop'
  );
});

it('passes on the message and reason of an error', async () => {
  const body = '{"message": "There is no run.", "reason": "Look again."}';
  const { server } = serverThatAnswers(body, 404);

  await expect(server.stop('v9')).rejects.toMatchObject({
    status: 404,
    message: 'There is no run.',
    reason: 'Look again.'
  });
});

it('survives an error page in HTML', async () => {
  const { server } = serverThatAnswers('<html>Bad gateway</html>', 502);

  await expect(server.models()).rejects.toMatchObject({
    status: 502,
    message: 'Status'
  });
});
