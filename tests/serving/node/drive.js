// A client in another language: drives a server with the proto file loaded at run time, and prints what came.
//
// Arguments: the folder with the packages, the proto file, and the place of the server.
'use strict';

const [modules, proto, place] = process.argv.slice(2);
const grpc = require(`${modules}/@grpc/grpc-js`);
const loader = require(`${modules}/@grpc/proto-loader`);

const definition = loader.loadSync(proto, {keepCase: true, longs: Number});
const {castore} = grpc.loadPackageDefinition(definition).snix;
const {BlobService, DirectoryService} = castore.v1;
const credentials = grpc.credentials.createInsecure();
const blobs = new BlobService(place, credentials);
const directories = new DirectoryService(place, credentials);

const unary = (client, method, request) => new Promise((resolve) => {
  client[method](request, (error, answer) => resolve(error ? {code: error.code} : answer));
});

const received = (call) => new Promise((resolve) => {
  const parts = [];
  call.on('data', (part) => parts.push(part));
  call.on('error', (error) => resolve({code: error.code}));
  call.on('end', () => resolve(parts));
});

const sent = (client, messages) => new Promise((resolve) => {
  const call = client.Put((error, answer) => resolve(error ? {code: error.code} : answer));
  messages.forEach((message) => call.write(message));
  call.end();
});

const hex = (bytes) => bytes && Buffer.from(bytes).toString('hex');

async function main() {
  const found = {};
  const big = Buffer.alloc(3000000, 'castore ');
  const pieces = [];
  for (let at = 0; at < big.length; at += 65536) pieces.push({data: big.subarray(at, at + 65536)});
  const stored = await sent(blobs, pieces);
  found.put = hex(stored.digest);
  const stat = await unary(blobs, 'Stat', {digest: stored.digest, send_chunks: true});
  found.stat = stat.chunks.map((chunk) => [hex(chunk.digest), chunk.size]);
  const parts = await received(blobs.Read({digest: stored.digest}));
  found.same = Buffer.concat(parts.map((part) => part.data)).equals(big);
  found.absent = (await unary(blobs, 'Stat', {digest: Buffer.alloc(32)})).code;
  found.short = (await received(blobs.Read({digest: Buffer.alloc(31)}))).code;

  const root = await sent(directories, [{
    directories: [], files: [{name: Buffer.from('f'), digest: stored.digest, size: big.length}], symlinks: [],
  }]);
  found.root = hex(root.root_digest);
  const tree = await received(directories.Get({digest: root.root_digest, recursive: true}));
  found.names = tree.map((directory) => directory.files.map((file) => file.name.toString()));
  found.dangling = (await sent(directories, [{
    directories: [{name: Buffer.from('d'), digest: Buffer.alloc(32), size: 0}], files: [], symlinks: [],
  }])).code;
  process.stdout.write(JSON.stringify(found));
  blobs.close();
  directories.close();
}

main();
