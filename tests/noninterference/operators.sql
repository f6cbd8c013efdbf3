SELECT pg__t1.s FROM pg__t1
SELECT CASE WHEN a.n > 1 THEN a.s ELSE 'x' END, coalesce(a.s, 'y') FROM pg__t1 a
SELECT count(*), count(a.s), sum(a.n), 1 FROM pg__t1 a WHERE a.k > 0
SELECT a.s, count(*), max(a.d) FROM pg__t1 a GROUP BY a.s
SELECT a.s, sum(a.n) FILTER (WHERE a.b), list(a.k ORDER BY a.id) FROM pg__t1 a GROUP BY a.s HAVING count(*) > 1
SELECT a.s, a.b, count(*) FROM pg__t1 a GROUP BY CUBE (a.s, a.b)
SELECT DISTINCT a.s, a.b FROM pg__t1 a
SELECT DISTINCT ON (a.k) a.s FROM pg__t1 a ORDER BY a.k, a.id
SELECT a.id, row_number() OVER (PARTITION BY a.k ORDER BY a.id), sum(a.n) OVER (PARTITION BY a.s) FROM pg__t1 a
SELECT a.id, lag(a.s) OVER (ORDER BY a.id), count(*) OVER () FROM pg__t1 a
SELECT a.s FROM pg__t1 a QUALIFY row_number() OVER (PARTITION BY a.k ORDER BY a.id) = 1
SELECT a.s, b.n FROM pg__t1 a JOIN lake__t2 b ON a.k = b.k
SELECT a.s, b.n FROM pg__t1 a LEFT JOIN lake__t2 b ON a.k = b.k AND b.n > 0
SELECT a.s, b.n IS NULL FROM pg__t1 a RIGHT JOIN lake__t2 b ON a.id = b.id
SELECT k, a.s, b.n FROM pg__t1 a FULL JOIN lake__t2 b USING (k)
SELECT a.s FROM pg__t1 a SEMI JOIN lake__t2 b ON a.k = b.k
SELECT a.s FROM pg__t1 a ANTI JOIN lake__t2 b ON a.k = b.k
SELECT a.s FROM pg__t1 a, duck__t3 b WHERE b.id < 3
SELECT a.s, b.n FROM pg__t1 a ASOF JOIN lake__t2 b ON a.id >= b.id
SELECT a.s FROM pg__t1 a WHERE EXISTS (SELECT 1 FROM lake__t2 b WHERE b.k = a.k AND b.n > 0)
SELECT EXISTS (SELECT 1 FROM lake__t2 b WHERE b.k = a.k), a.s FROM pg__t1 a
SELECT a.s FROM pg__t1 a WHERE a.k NOT IN (SELECT b.k FROM lake__t2 b WHERE b.k IS NOT NULL)
SELECT a.k IN (SELECT b.k FROM lake__t2 b), a.s FROM pg__t1 a
SELECT a.s, (SELECT max(b.n) FROM lake__t2 b WHERE b.s IS NOT NULL) FROM pg__t1 a
SELECT a.s, (SELECT sum(b.n) FROM lake__t2 b WHERE b.k = a.k) FROM pg__t1 a
SELECT a.s FROM pg__t1 a WHERE a.id > ALL (SELECT b.k FROM lake__t2 b WHERE b.k IS NOT NULL)
SELECT a.s FROM pg__t1 a UNION ALL SELECT b.s FROM lake__t2 b WHERE b.n > 0
SELECT a.s, a.k FROM pg__t1 a UNION SELECT b.s, b.k FROM lake__t2 b
SELECT a.s FROM pg__t1 a EXCEPT SELECT b.s FROM lake__t2 b
SELECT a.s FROM pg__t1 a INTERSECT SELECT b.s FROM lake__t2 b
SELECT a.s FROM pg__t1 a EXCEPT ALL SELECT b.s FROM lake__t2 b
SELECT a.s FROM pg__t1 a ORDER BY a.k, a.id LIMIT 3
SELECT a.s FROM (SELECT * FROM pg__t1 ORDER BY n, id LIMIT 5 OFFSET 2) a
WITH w AS (SELECT k, max(n) AS m FROM pg__t1 GROUP BY k) SELECT x.m, y.k FROM w x JOIN w y ON x.k = y.k
SELECT m FROM (SELECT count(*) AS m FROM pg__t1 GROUP BY k) q
WITH RECURSIVE r AS (SELECT id, s FROM pg__t1 WHERE k = 0 UNION ALL SELECT r.id + 1, r.s FROM r WHERE r.id < 9) SELECT id, s FROM r
SELECT u.x, a.s FROM pg__t1 a, unnest([a.k, a.id]) u(x)
SELECT unnest([a.k, a.id]), a.s FROM pg__t1 a
FROM (PIVOT pg__t1 ON b USING count(*) GROUP BY k)
SELECT * FROM (SELECT id, k FROM pg__t1) UNPIVOT (v FOR c IN (id, k))
SELECT a.s FROM pg__t1 a POSITIONAL JOIN duck__t3 b
SELECT COLUMNS('[sk]') FROM pg__t1
SELECT a FROM duck__t3 a
SELECT a.s FROM pg__t1 a ORDER BY a.id LIMIT (SELECT count(*) FROM duck__t3 b WHERE b.k = 1)
SELECT first(a.s ORDER BY a.id), any_value(a.k) IS NULL FROM pg__t1 a
SELECT a.s, b.s FROM pg__t1 a, LATERAL (SELECT max(c.s) AS s FROM duck__t3 c WHERE c.k = a.k) b
SELECT a.s FROM pg__t1 a NATURAL JOIN duck__t3 b
SELECT x.s FROM (SELECT s, n FROM pg__t1 WHERE b) x WHERE x.n > 0
SELECT [y FOR y IN [a.k, a.id] IF y > 0], a.s FROM pg__t1 a
SELECT a.b AND a.k > 1, a.s || a.k FROM pg__t1 a
