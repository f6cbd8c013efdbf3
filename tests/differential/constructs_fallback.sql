SELECT * FROM pg.ex.emp e POSITIONAL JOIN lake.dep d
SELECT count(*) FROM pg.ex.emp USING SAMPLE 100%
SELECT info.* FROM lake.dep ORDER BY 1
SELECT COLUMNS('s.*') FROM pg.ex.emp ORDER BY 1
SELECT [x for x in tags if x <> 'a'] FROM pg.ex.emp ORDER BY id
SELECT id, t FROM pg.ex.emp, unnest(tags) u(t) ORDER BY 1,2
SELECT id, t FROM pg.ex.emp CROSS JOIN LATERAL unnest(tags) u(t) ORDER BY 1,2
UNPIVOT (SELECT id, dept, id+1 AS nxt FROM pg.ex.emp) ON dept, nxt ORDER BY ALL
SELECT * FROM (PIVOT pg.ex.emp ON dept USING sum(sal) GROUP BY name) ORDER BY ALL
WITH RECURSIVE t AS (SELECT id, parent, 0 AS lvl FROM lake.dep WHERE parent IS NULL UNION ALL SELECT d.id, d.parent, lvl+1 FROM lake.dep d JOIN t ON d.parent=t.id) SELECT * FROM t ORDER BY ALL
SELECT id FROM pg.ex.emp WHERE id = ANY([1,2]) ORDER BY id
SELECT * FROM range(3) t(i) JOIN pg.ex.emp e ON e.id = t.i ORDER BY ALL
SELECT * FROM generate_series(1, 3) g JOIN pg.ex.emp ON id = generate_series ORDER BY ALL
SELECT id FROM pg.ex.emp ORDER BY id LIMIT (SELECT count(*) FROM lake.dep)
SELECT to_json(e) FROM (SELECT id, name FROM pg.ex.emp) e ORDER BY e.id
SELECT e FROM pg.ex.emp e ORDER BY e.id LIMIT 1
SELECT count(e) FROM pg.ex.emp e
SELECT id FROM pg.ex.emp WHERE (name = 'ann') IS NOT TRUE ORDER BY id
SELECT bool_and(id > 0), bool_or(sal IS NULL), bit_or(id), product(id), any_value(dept) FROM pg.ex.emp
SELECT #1 FROM pg.ex.emp ORDER BY #1
SELECT current_date IS NOT NULL, now() IS NOT NULL
