SELECT d.info.a, d.info['b'], d.m['k'] FROM lake.dep d ORDER BY 1
SELECT dep.info.a FROM lake.dep ORDER BY 1
SELECT * REPLACE (id+1 AS id) FROM pg.ex.emp ORDER BY 1
SELECT * RENAME (id AS ident) FROM pg.ex.emp ORDER BY 1
SELECT e.* EXCLUDE (tags, ts), d.title FROM pg.ex.emp e JOIN lake.dep d ON e.dept=d.id ORDER BY ALL
SELECT id, unnest(tags) FROM pg.ex.emp ORDER BY 1,2
SELECT name, sal, sal > avg(sal) OVER () AS above FROM pg.ex.emp QUALIFY above ORDER BY name
SELECT dept, sum(sal) AS s FROM pg.ex.emp GROUP BY dept HAVING s > 60 ORDER BY s
SELECT id AS x, x + 1 AS y FROM pg.ex.emp WHERE y > 3 ORDER BY y
SELECT dept, count(*) FROM pg.ex.emp GROUP BY GROUPING SETS ((dept), ()) ORDER BY ALL
SELECT dept, name, sum(sal) FROM pg.ex.emp GROUP BY CUBE (dept, name) ORDER BY ALL
SELECT max(hired) FILTER (dept = 10), arg_max(name, sal), mode(dept % 10), approx_count_distinct(dept) FROM pg.ex.emp
SELECT quantile_cont(sal, 0.5), median(sal), stddev(sal::double), string_agg(name, ',' ORDER BY id) FROM pg.ex.emp
SELECT first_value(name) OVER w, lag(sal, 1, 0) OVER w FROM pg.ex.emp WINDOW w AS (PARTITION BY dept ORDER BY id) ORDER BY ALL
SELECT ntile(2) OVER (ORDER BY id), percent_rank() OVER (ORDER BY sal NULLS FIRST) FROM pg.ex.emp ORDER BY ALL
SELECT sum(sal) OVER (ORDER BY hired RANGE BETWEEN INTERVAL 1 YEAR PRECEDING AND CURRENT ROW) FROM pg.ex.emp ORDER BY ALL
SELECT id FROM pg.ex.emp WHERE name SIMILAR TO 'a.*|b.*' ORDER BY id
SELECT id FROM pg.ex.emp WHERE name ~ 'a.*' ORDER BY id
SELECT id FROM pg.ex.emp WHERE name !~ 'a.*' ORDER BY id
SELECT id FROM pg.ex.emp WHERE name GLOB '*n*' ORDER BY id
SELECT id FROM pg.ex.emp WHERE (dept, id) IN (SELECT id, 1 FROM lake.dep) ORDER BY id
SELECT id FROM pg.ex.emp WHERE (dept, id) IN ((10,1),(20,4)) ORDER BY id
SELECT id FROM pg.ex.emp WHERE dept = ANY(SELECT id FROM lake.dep WHERE title <> 'ops') ORDER BY id
SELECT id FROM pg.ex.emp WHERE 'a' IN tags ORDER BY id
SELECT id FROM pg.ex.emp WHERE list_contains(tags,'a') ORDER BY id
SELECT id, (SELECT list(title ORDER BY title) FROM lake.dep d WHERE d.id >= e.dept) FROM pg.ex.emp e ORDER BY id
SELECT (SELECT max(sal) FROM pg.ex.emp) - (SELECT min(sal) FROM pg.ex.emp)
SELECT e.id FROM pg.ex.emp e WHERE EXISTS (SELECT 1 FROM lake.dep d WHERE d.id = e.dept AND d.parent = (SELECT min(id) FROM lake.dep)) ORDER BY 1
SELECT CASE dept WHEN 10 THEN 'x' WHEN 20 THEN 'y' ELSE 'z' END AS k, count(*) FROM pg.ex.emp GROUP BY k ORDER BY k
SELECT date_trunc('year', hired) y, count(*) FROM pg.ex.emp GROUP BY y ORDER BY y
SELECT year(hired), month(hired), dayname(hired), strftime(hired, '%Y/%m') FROM pg.ex.emp ORDER BY id
SELECT hired + INTERVAL 1 DAY, hired - DATE '2020-01-01', age(DATE '2023-01-01', hired) FROM pg.ex.emp ORDER BY id
SELECT date_diff('month', hired, DATE '2024-01-01'), extract(epoch FROM ts) FROM pg.ex.emp ORDER BY id
SELECT TRY_CAST(name AS INT), sal::INT, sal::VARCHAR, id::DOUBLE / 3 FROM pg.ex.emp ORDER BY id
SELECT sal % 7, sal // 7, -sal, abs(sal), round(sal, 1), floor(sal), sal ** 2 FROM pg.ex.emp ORDER BY id
SELECT name[1], name[1:2], left(name, 1), lpad(name, 5, '*'), name || dept FROM pg.ex.emp ORDER BY id
SELECT coalesce(name, 'none'), ifnull(sal, 0), nullif(dept, 10), greatest(id, dept), least(id, dept) FROM pg.ex.emp ORDER BY id
SELECT * FROM pg.ex.emp NATURAL JOIN (SELECT id, 'q' AS q FROM lake.dep) ORDER BY ALL
SELECT * FROM (VALUES (1,'a'),(2,'b')) v(k, w) JOIN pg.ex.emp e ON e.id = v.k ORDER BY ALL
(SELECT id FROM pg.ex.emp ORDER BY id LIMIT 2) UNION ALL (SELECT id FROM lake.dep ORDER BY id DESC LIMIT 1) ORDER BY 1
SELECT id FROM pg.ex.emp INTERSECT ALL SELECT id FROM pg.ex.emp ORDER BY 1
SELECT dept FROM pg.ex.emp EXCEPT ALL SELECT id FROM lake.dep ORDER BY 1 NULLS FIRST
SELECT id, sal FROM pg.ex.emp UNION BY NAME SELECT title, id FROM lake.dep ORDER BY ALL
SELECT DISTINCT ON (dept) dept, name FROM pg.ex.emp ORDER BY dept, sal DESC NULLS LAST
SELECT id FROM pg.ex.emp ORDER BY sal DESC NULLS FIRST, id LIMIT 2 OFFSET 1
SELECT id FROM pg.ex.emp ORDER BY id LIMIT 40%
FROM pg.ex.emp WHERE id < 3 ORDER BY id
FROM pg.ex.emp SELECT id, row_number() OVER () WHERE id < 3 ORDER BY id
SELECT struct_pack(a := id, b := name), {'x': id}, map([id],[name]) FROM pg.ex.emp ORDER BY id
SELECT count(DISTINCT (dept, name)) FROM pg.ex.emp
SELECT id, name FROM pg.ex.emp WHERE name ILIKE 'A%' OR name NOT ILIKE '%b%' ORDER BY id
SELECT id FROM pg.ex.emp WHERE name NOT LIKE '%n%' ORDER BY id
SELECT id FROM pg.ex.emp WHERE name LIKE '%n_' ESCAPE '\' ORDER BY id
SELECT id FROM pg.ex.emp WHERE NOT (sal BETWEEN 60 AND 150) ORDER BY id
SELECT id FROM pg.ex.emp WHERE sal IS DISTINCT FROM 100.50 AND dept IS NOT DISTINCT FROM 20 ORDER BY id
SELECT e.id, d.title FROM pg.ex.emp e LEFT JOIN lake.dep d ON e.dept = d.id AND d.title LIKE 'o%' WHERE d.title IS NULL ORDER BY 1
SELECT e.id, d.id FROM pg.ex.emp e FULL JOIN lake.dep d ON e.dept = d.id ORDER BY ALL
SELECT coalesce(e.dept, d.id) k FROM pg.ex.emp e FULL JOIN lake.dep d ON e.dept = d.id GROUP BY k ORDER BY k
SELECT id FROM pg.ex.emp e FULL JOIN lake.dep d USING (id) ORDER BY id
SELECT e.id FROM pg.ex.emp e SEMI JOIN lake.dep d ON e.dept = d.id ORDER BY 1
WITH x AS MATERIALIZED (SELECT * FROM pg.ex.emp), y(a) AS (SELECT id FROM x) SELECT * FROM y JOIN x ON a = id ORDER BY ALL
WITH e AS (SELECT 1 AS id) SELECT * FROM e JOIN pg.ex.emp q USING (id)
SELECT hash(name) IS NOT NULL, md5(name), length(name), strlen(name), ascii(name) FROM pg.ex.emp ORDER BY id
SELECT 1 AS one, 'x' y, NULL n, true t, 1.5 d, 1e3 f, DATE '2020-01-01' dt
SELECT id FROM pg.ex.emp GROUP BY id ORDER BY count(*), id
SELECT sum(sal) s, dept FROM pg.ex.emp GROUP BY 2 ORDER BY 1
SELECT dept, sum(sal) / count(*) FROM pg.ex.emp GROUP BY dept ORDER BY sum(sal) NULLS FIRST
SELECT sum(sum(sal)) OVER (ORDER BY dept) FROM pg.ex.emp GROUP BY dept ORDER BY 1
SELECT id, sal, CASE WHEN sal > 100 THEN 'hi' END FROM pg.ex.emp ORDER BY sal IS NULL, sal DESC, id
SELECT id FROM pg.ex.emp WHERE random() >= 0 ORDER BY id
SELECT id FROM pg.ex.emp WHERE ts < now() ORDER BY id
SELECT a.id FROM pg.ex.emp a, pg.ex.emp b, lake.dep d WHERE a.dept = b.dept AND b.dept = d.id AND a.id < b.id ORDER BY 1
SELECT emp.id, ex.emp.name, pg.ex.emp.sal FROM pg.ex.emp ORDER BY 1
SELECT x.id FROM pg.ex.emp AS x(id, nm) WHERE nm = 'ann'
SELECT min(id), max(id) FROM pg.ex.emp WHERE false
SELECT count(*) FROM pg.ex.emp WHERE false GROUP BY dept
SELECT DISTINCT dept, sal > 90 FROM pg.ex.emp ORDER BY ALL
SELECT id FROM pg.ex.emp WHERE hired > '2020-06-01' ORDER BY id
SELECT id FROM pg.ex.emp WHERE hired IN ('2020-01-15', '2019-07-31') ORDER BY id
SELECT id FROM pg.ex.emp WHERE id IN (1.0, 2.5) ORDER BY id
SELECT id FROM pg.ex.emp WHERE id > 1.5 AND sal < 150.005 ORDER BY id
SELECT id FROM pg.ex.emp WHERE id = '3'
SELECT tags FROM pg.ex.emp WHERE tags = ['c']
SELECT len(tags), tags[1], array_length(tags) FROM pg.ex.emp ORDER BY id
SELECT list_transform(tags, lambda x: x || '!') FROM pg.ex.emp ORDER BY id
