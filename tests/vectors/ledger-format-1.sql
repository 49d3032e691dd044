BEGIN TRANSACTION;
CREATE TABLE entries (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, time TEXT NOT NULL, dataset TEXT NOT NULL,
    request TEXT, study TEXT, ask TEXT, query TEXT,
    mechanism TEXT, sensitivity INTEGER, sigma INTEGER, width INTEGER,
    epsilon REAL, delta REAL, debit INTEGER, bytes_hash TEXT, previous TEXT NOT NULL, hash TEXT NOT NULL);
INSERT INTO "entries" VALUES(1,'budget','2026-11-22T03:45:35.207+00:00','children',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,3.0,1.0e-05,NULL,NULL,'0000000000000000000000000000000000000000000000000000000000000000','fd869cf5853e2851ac907c04659afc1bad3edbc59f193ca846af0f30bbbcdb20');
INSERT INTO "entries" VALUES(2,'debit','2026-11-22T03:45:35.237+00:00','children','r0','growth','sizes:0','count/1','discrete-gaussian/1',1048576,8388608,3,2.0,1.0e-05,NULL,NULL,'fd869cf5853e2851ac907c04659afc1bad3edbc59f193ca846af0f30bbbcdb20','750552d76546160531ec7f0f53e855982801e002df965df2cb58cbbac0a8bac2');
INSERT INTO "entries" VALUES(3,'release','2026-11-22T03:45:35.242+00:00','children','r0','growth','sizes:0','count/1',NULL,NULL,NULL,NULL,NULL,NULL,2,'9d908ecfb6b256def8b49a7c504e6c889c4b0e41fe6ce3e01863dd7b61a20aa0','750552d76546160531ec7f0f53e855982801e002df965df2cb58cbbac0a8bac2','98b061c7e993a9b276e7c6f1eb4c97e3d4f004b1663f9d0cbe9e52da42e9e5c2');
INSERT INTO "entries" VALUES(4,'debit','2026-11-22T03:45:35.243+00:00','children','r1','growth','sizes:1','count/1','discrete-gaussian/1',1048576,8388609,4,2.0,1.0e-05,NULL,NULL,'98b061c7e993a9b276e7c6f1eb4c97e3d4f004b1663f9d0cbe9e52da42e9e5c2','bda783169c37990130a5068dfe17c2163be9736cd71a875591f9fb95ce6ccb18');
INSERT INTO "entries" VALUES(5,'release','2026-11-22T03:45:35.244+00:00','children','r1','growth','sizes:1','count/1',NULL,NULL,NULL,NULL,NULL,NULL,4,'72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793','bda783169c37990130a5068dfe17c2163be9736cd71a875591f9fb95ce6ccb18','849848ac014fa0cf9ab63ba08e7ad420b42635068e6d46f8b4c1271f183d0712');
INSERT INTO "entries" VALUES(6,'debit','2026-11-22T03:45:35.245+00:00','children','r2','growth','sizes:2','count/1','discrete-gaussian/1',1048576,8388610,5,2.0,1.0e-05,NULL,NULL,'849848ac014fa0cf9ab63ba08e7ad420b42635068e6d46f8b4c1271f183d0712','acc53aeeab0780a14ef45498f0fea5f76d98ee3f019433f1672aff953a64343d');
INSERT INTO "entries" VALUES(7,'burn','2026-11-22T03:45:35.246+00:00','children','abababababababababababababababababababababababababababababababab',NULL,NULL,NULL,'discrete-gaussian/1',1024,1073741824,7,NULL,NULL,9,NULL,'acc53aeeab0780a14ef45498f0fea5f76d98ee3f019433f1672aff953a64343d','622d7c2dec329529afd5823121618290b3f5ce6e8576c332a716fb3029e8ae49');
CREATE TABLE released (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
INSERT INTO "released" VALUES(3,X'000000000000000000000000000000000000000000000000');
INSERT INTO "released" VALUES(5,X'0101010101010101010101010101010101010101010101010101010101010101');
CREATE INDEX steps ON entries (study, ask) WHERE kind = 'debit';
CREATE UNIQUE INDEX one_release ON entries (request) WHERE kind = 'release';
CREATE TRIGGER entries_append BEFORE INSERT ON entries
    WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM entries) OR NEW.kind = 'release'
        AND EXISTS (SELECT 1 FROM entries WHERE kind = 'release' AND request = NEW.request)
    BEGIN SELECT RAISE(ABORT, 'entries are only appended'); END;
CREATE TRIGGER entries_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries never change'); END;
CREATE TRIGGER entries_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'entries are never dropped'); END;
CREATE TRIGGER released_append BEFORE INSERT ON released
    WHEN EXISTS (SELECT 1 FROM released WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'bytes are only appended'); END;
CREATE TRIGGER released_update BEFORE UPDATE ON released
    BEGIN SELECT RAISE(ABORT, 'bytes never change'); END;
CREATE TRIGGER released_delete BEFORE DELETE ON released
    BEGIN SELECT RAISE(ABORT, 'bytes are never dropped'); END;
COMMIT;
